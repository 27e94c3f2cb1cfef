"""The appliance: from DICOM files to a structured report, without torch.

Research use only; not a medical device.
"""

__all__ = ["__version__", "config", "contract", "dicom", "model", "radiomics", "report", "staging"]

__version__ = "0.2.0"
