"""The model bundle: files, signature, manifest, network and self-test."""

__all__ = [
    "answering",
    "bundle",
    "bundle_files",
    "contour_bundle",
    "contour_network",
    "inference",
    "manifest",
    "model_file",
    "roi_rule",
    "sealed",
    "signature",
]
