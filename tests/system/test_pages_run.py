"""Pages for those who learn by following them: every block of code is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.blocks import run_page
from tests.support.loaded import loaded_commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with loaded_commands(tmp_path_factory.mktemp("loaded")) as environment:
        yield environment


def test_from_a_csv_to_a_validated_bundle(commands: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    run_page(ROOT / "docs" / "researchers.md", folder, commands)
    assert (folder / "validation" / "validation.json").is_file()


def test_from_dicom_to_a_bundle_for_another_endpoint(commands: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    run_page(ROOT / "docs" / "another-endpoint.md", folder, commands)
    assert "Made-up hospital" in (folder / "bundles" / "recurrence" / "MODEL_CARD.md").read_text(encoding="utf-8")
