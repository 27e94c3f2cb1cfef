"""From DICOM files to a checked series, a region of interest, and the slices to measure."""

__all__ = [
    "cases", "charset", "choice", "coded", "completeness", "contours", "files", "geometry", "header", "identity",
    "instance", "jpeg_lossless", "linking", "multiframe", "names", "pixel_grid", "raster", "region", "roi",
    "series", "stack",
]  # fmt: skip
