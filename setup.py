"""Set the licences, which depend on what is packed: the shipped bundles and the viewer of the page."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent

licences, files = ["Apache-2.0"], ["LICENSE"]
if (ROOT / "lungstage" / "models").is_dir():
    licences, files = [*licences, "CC-BY-NC-3.0"], [*files, "lungstage/models/LICENSE"]
if (ROOT / "lungstage" / "appliance" / "page" / "static" / "niivue.js").is_file():
    licences, files = [*licences, "BSD-2-Clause", "ISC", "MIT"], [*files, "NOTICE"]
setup(license_expression=" AND ".join(licences), license_files=files)
