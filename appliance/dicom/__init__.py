"""From loose DICOM files to a proven series, a region of interest and the slices to measure."""

__all__ = [
    "cases", "completeness", "files", "geometry", "header", "instance", "jpeg_lossless", "multiframe", "names",
    "raster", "roi", "series",
]  # fmt: skip
