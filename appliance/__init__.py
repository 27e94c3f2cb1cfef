"""The appliance: from DICOM files to a structured report, without torch.

Research use only; not a medical device.
"""

__version__ = "0.2.0"
