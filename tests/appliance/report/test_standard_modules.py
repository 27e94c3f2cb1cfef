"""highdicom's table of DICOM modules: single modules are read with the same content, never the whole table."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files

import pytest

from lungstage.appliance.report.standard_modules import StandardModules


def test_every_module_is_what_highdicom_would_have_read() -> None:
    whole = json.loads((files("highdicom") / "_standard" / "module_attribute_map.json").read_text(encoding="utf-8"))
    assert dict(StandardModules()) == whole
    assert "segmentation-multi-frame-functional-groups" in StandardModules()
    assert "no-such-module" not in StandardModules()


@pytest.mark.parametrize(
    "first",
    ["report.build_segmentation(context)", "report.build_report(context, report.SegmentReference('1.2', '1.2.3', 1))"],
)
def test_no_document_has_the_table_read_whole(first: str) -> None:
    """In a separate process, because another test may already have read the table."""
    program = (
        "from highdicom import _standard_utils, base, image\n"
        "whole = _standard_utils.get_module_attribute_map\n"
        "from lungstage.appliance.report import structured_report as report\n"
        "from tests.support.reports import generated_sources, made_up_context\n"
        "context = made_up_context(generated_sources())\n"
        f"{first}\n"
        "assert whole.cache_info().misses == 0, 'read whole'\n"
        "assert len(base.get_module_attribute_map()) > 400\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
