"""The appliance: makes a structured report from DICOM files. It does not need torch.

Research use only; not a medical device.
"""

__all__ = [
    "__version__",
    "commissioning",
    "config",
    "contour",
    "contract",
    "descriptors",
    "dicom",
    "model",
    "radiomics",
    "report",
    "robustness",
    "staging",
]

__version__ = "0.2.0"
