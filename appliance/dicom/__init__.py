"""From loose DICOM files to a proven series, a region of interest and the slices to measure."""
