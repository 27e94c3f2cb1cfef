"""Pages that users follow step by step: every block of code is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lungstage.training.cohorts.description import read_description
from lungstage.training.configuration import load_configuration
from tests.conftest import ROOT
from tests.support.blocks import run_page
from tests.support.loaded import loaded_commands

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with loaded_commands(tmp_path_factory.mktemp("loaded")) as environment:
        yield environment


def test_from_a_csv_to_a_validated_bundle(commands: dict[str, str], tmp_path: Path) -> None:
    """With fewer patients and smaller networks than on the page."""
    folder = tmp_path / "empty"
    folder.mkdir()
    text = (ROOT / "docs" / "researchers.md").read_text(encoding="utf-8")
    for long, short in (
        ("range(60)", "range(30)"), ("60 measured", "30 measured"), ("(60, 106)", "(30, 106)"),
        ("DeepClassifier(members=2, max_epochs=15)\n", "DeepClassifier(members=1, max_epochs=4)\n"),
    ):  # fmt: skip
        assert long in text
        text = text.replace(long, short)
    run_page(page(tmp_path, text), folder, commands)
    assert (folder / "validation" / "validation.json").is_file()
    assert read_description(folder / "own.toml").extraction == {"binWidth": 25.0}


def test_from_dicom_to_a_bundle_for_another_endpoint(commands: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    run_page(ROOT / "docs" / "another-endpoint.md", folder, commands)
    assert "Made-up hospital" in (folder / "bundles" / "recurrence" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert load_configuration(folder / "survival.toml", {}).endpoint.horizon_days == 730


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def test_a_page_is_not_passed_whose_code_fails(commands: dict[str, str], tmp_path: Path) -> None:
    """Checks that the two tests above can fail."""
    (tmp_path / "empty").mkdir()
    for code, told in (
        ("```python\nprint(1 / 0)\n```\n", "ZeroDivisionError"),
        ("```sh\nfalse | true\n```\n", "false"),
        ("```sh\nlungstage verify nowhere\n```\n", "There is no bundle nowhere"),
        ("```sh\nlungstage --version\n```\n\n```text\n0.0.0\n```\n", "it shows"),
        ("```python\nprint(1)\n```\n\n```text\n2\n```\n", "it shows"),
        ("```bash\ntrue\n```\n", "is not run"),
        ("- in a list\n  ```sh\n  true\n  ```\n", "left out"),
    ):
        with pytest.raises(AssertionError, match=told):
            run_page(page(tmp_path, code), tmp_path / "empty", commands)


def test_python_blocks_are_one_session_and_commands_end_with_their_status(
    commands: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    text = (
        "```python\na = 1\n```\n"
        "```sh\necho $(lungstage stage nowhere --bundle lung1-stage --out o 2> /dev/null; echo $?)\n```\n"
        "```text\n4\n```\n```python\nprint(a + 1)\n```\n```text\n2\n```\n"
    )
    run_page(page(tmp_path, text), tmp_path / "empty", commands)
