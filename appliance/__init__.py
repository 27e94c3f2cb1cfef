"""The appliance: from DICOM files to a structured report, without torch.

Research use only; not a medical device.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("lungstage")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
