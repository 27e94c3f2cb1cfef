"""The real daemon delivers into an outbox that another program manipulates."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pydicom
import pytest

from tests.support.studies import named_study
from tests.system.test_run import BRIEFLY, ENVIRONMENT, called, running, tolerant_bundle  # noqa: F401

STUDIES = ("linked", "piped", "free")


@pytest.mark.slow
def test_links_and_pipes_in_the_way_cost_their_own_study_and_nothing_else(
    tmp_path: Path,
    tolerant_bundle: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(ENVIRONMENT, "LUNGSTAGE_FORMATS", "sr")
    names = {}
    for study in STUDIES:
        named_study(study).write(tmp_path / study)
        out = tmp_path / f"{study} once"
        command = ("stage", tmp_path / study, "--bundle", tolerant_bundle, "--out", out)
        staged = called(*command, "--json", *BRIEFLY)
        names[study] = Path(json.loads(staged.stdout)["sr"]).name
    precious = tmp_path / "precious"
    precious.write_text("somebody's")
    outbox = tmp_path / "outbox"
    outbox.mkdir()
    (outbox / names["linked"]).symlink_to(precious)
    os.mkfifo(outbox / names["piped"])
    os.mkfifo(outbox / f".{names['piped']}.part")
    with running(tmp_path, tolerant_bundle) as appliance:
        for study in STUDIES:
            shutil.copytree(tmp_path / study, appliance.inbox / study)
        appliance.until(lambda: sorted(appliance.states()) == ["delivered", "held", "held"])
        assert {job["reason"]["code"] for job in appliance.jobs() if job["reason"]} == {"outbox_occupied"}
        assert pydicom.dcmread(outbox / names["free"]).SOPInstanceUID in names["free"]
        assert precious.read_text() == "somebody's"

        (outbox / names["linked"]).unlink()
        (outbox / names["piped"]).unlink()
        appliance.until(lambda: appliance.states() == ["delivered"] * 3)
        appliance.stop()
    assert {path.name for path in outbox.glob("SR-*.dcm")} == {*names.values()}
    assert precious.read_text() == "somebody's"
