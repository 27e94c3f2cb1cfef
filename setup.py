"""What pyproject.toml cannot say: the licences follow from whether the shipped bundle is packed."""

from pathlib import Path

from setuptools import setup

if (Path(__file__).parent / "lungstage" / "models").is_dir():
    setup(license_expression="Apache-2.0 AND CC-BY-NC-3.0", license_files=["LICENSE", "lungstage/models/LICENSE"])
else:
    setup(license_expression="Apache-2.0", license_files=["LICENSE"])
