"""Drawing a contour in the page: who may do it, what is refused, and that only a confirmed contour is written."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.contour.prompts import Prompt
from lungstage.appliance.contract.case import RegionChoice
from lungstage.appliance.contract.errors import Held, ReasonCode, Refused, Unavailable
from lungstage.appliance.state import chain
from tests.appliance.page.conftest import IMAGES, Site, hidden
from tests.support.fake_steps import put_slice
from tests.support.simulated import put_study

LINE = {"kind": "diameter", "points": [[0, 0, 0], [20, 0, 0]], "include": [], "exclude": [], "smooth": 0, "region": ""}
FORM = {"checked": "yes", "person": "Weber^Anna", "images": IMAGES}


@pytest.fixture
def waiting(site: Site) -> Site:
    """A study without a region, and a delivered one: jobs 1 and 2."""
    for k in range(5):
        put_slice(site.house.inbox, "1.6", k)
    site.house.run(5)
    put_study(site.house.inbox / "b", "1.5")
    site.house.run(5)
    assert site.house.states() == ["held", "delivered"]
    return site


def sketched(client: Any, draft: object, job: int = 1, **more: str) -> Any:
    csrf = hidden(client.get("/").text, "csrf")
    return client.post(f"/study/{job}/contour/sketch", data={"csrf": csrf, "draft": json.dumps(draft)} | more)


def confirmed(client: Any, sketch: str, job: int = 1, more: dict[str, str] | None = None) -> Any:
    csrf = hidden(client.get("/").text, "csrf")
    return client.post(f"/study/{job}/contour/confirm", data={"csrf": csrf, "sketch": sketch} | FORM | (more or {}))


def heading(answer: Any) -> str:
    (text,) = re.findall("<h1>(.*?)</h1>", answer.text)
    return str(text)


def segs(site: Site) -> list[Path]:
    return sorted(site.house.inbox.glob("*SEG*"))


def test_a_study_without_a_region_leads_to_the_drawing(waiting: Site) -> None:
    client = waiting.logged_in()
    assert "/study/1/contour" in client.get("/study/1").text
    text = client.get("/study/1/contour").text
    assert "Contour for job 1" in text
    assert 'src="/static/contour.js"' in text
    assert "from edge to edge" in text


def test_what_is_drawn_is_told_and_confirmed_it_lies_in_the_inbox(waiting: Site) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    assert told["volume"].startswith("Volume: 4.20 ml")
    assert told["keys"] == [1, 2, 3]
    viewer: Any = waiting.context.viewer
    (draft,) = viewer.sketched
    assert draft.prompt == Prompt("diameter", ((0.0, 0.0, 0.0), (20.0, 0.0, 0.0)))
    assert client.get(f"/study/1/contour/picture/axial/0.png?sketch={told['sketch']}").content.startswith(b"\x89PNG")
    assert segs(waiting) == []
    answer = confirmed(client, told["sketch"])
    assert answer.status_code == 303
    assert "written into the inbox" in client.get(answer.headers["location"]).text
    assert [path.read_bytes() for path in segs(waiting)] == [b"SEG"]
    entries = [entry for entry in chain.entries(waiting.context.site.folder) if entry.event == "contour_confirmed"]
    assert [entry.fields["jobs"] for entry in entries] == [[1]]
    assert "Weber" not in str(entries)


def test_a_region_is_corrected(waiting: Site) -> None:
    client = waiting.logged_in()
    draft = LINE | {"kind": "region", "points": [], "include": [[1, 2, 3]], "region": "1.5.99/2", "smooth": 1.5}
    assert sketched(client, draft, job=2).status_code == 200
    viewer: Any = waiting.context.viewer
    assert viewer.sketched[-1].base == RegionChoice("1.5.99", 2)
    assert viewer.sketched[-1].prompt == Prompt("region", (), include=((1.0, 2.0, 3.0),), smooth=1.5)
    assert sketched(client, draft | {"points": [[4, 5, 6]]}, job=2).json()["parts"] == ""
    assert viewer.sketched[-1].prompt.points == ((4.0, 5.0, 6.0),)


@pytest.mark.parametrize(
    "draft",
    [
        "", [], {}, LINE | {"kind": "star"}, LINE | {"points": [[0, 0, 0]]}, LINE | {"points": [[0, 0], [1, 1]]},
        LINE | {"points": [[0, 0, "x"], [1, 1, 1]]}, LINE | {"smooth": 99}, LINE | {"smooth": -1},
        LINE | {"region": "1.5.99/2"}, LINE | {"kind": "region", "points": []}, LINE | {"region": "1.5.99"},
        LINE | {"kind": "region", "points": [[0, 0, 0]] * 2, "region": "1.5.99/2"},
        LINE | {"include": [[0, 0, 0]] * 401}, LINE | {"points": [[0, 0, 1e400], [1, 1, 1]]}, LINE | {"include": 3},
        LINE | {"points": [[0, 0, 10**400], [1, 1, 1]]}, LINE | {"smooth": 10**400},
    ],
)  # fmt: skip
def test_what_no_browser_sends_is_refused(waiting: Site, draft: object) -> None:
    answer = sketched(waiting.logged_in(), draft)
    assert (answer.status_code, answer.text[:25]) == (400, "This form has expired, or")
    viewer: Any = waiting.context.viewer
    assert viewer.sketched == []


@pytest.mark.parametrize("sent", ["[" * 3000, "[" * 20000, "1" * 5000, '{"kind": ' * 3000, "\ud800", "NaN"])
def test_what_is_no_draft_at_all_is_refused_too(waiting: Site, sent: str) -> None:
    client = waiting.logged_in()
    form = {"csrf": hidden(client.get("/").text, "csrf"), "draft": sent.encode("utf-8", "surrogatepass")}
    assert client.post("/study/1/contour/sketch", data=form).status_code == 400


def test_who_may_only_look_may_not_draw(waiting: Site) -> None:
    waiting.users(root="operate", eve="view")
    client = waiting.logged_in("eve")
    assert "/contour" not in client.get("/study/1").text
    assert client.get("/study/1/contour").status_code == 403
    assert sketched(client, LINE).status_code == 403
    assert confirmed(client, "x").status_code == 403
    assert client.get("/study/1/contour/picture/axial/0.png?sketch=x").status_code == 403


def test_a_form_of_somebody_else_draws_and_confirms_nothing(waiting: Site) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    assert client.post("/study/1/contour/sketch", data={"csrf": "x", "draft": json.dumps(LINE)}).status_code == 403
    form = FORM | {"csrf": "x", "sketch": told["sketch"]}
    assert client.post("/study/1/contour/confirm", data=form).status_code == 403
    assert waiting.browser().post("/study/1/contour/confirm", data=form).status_code == 401
    assert segs(waiting) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"checked": ""}, "tick the box"),
        ({"person": ""}, "must have letters"),
        ({"person": "a\\b"}, "must not contain backslashes"),
        ({"person": "x" * 65}, "at most 64 characters"),
        ({"sketch": "0" * 32}, "no longer exists"),
    ],
)
def test_what_is_missing_at_the_confirmation_is_said(waiting: Site, more: dict[str, str], words: str) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    answer = confirmed(client, told["sketch"], more=more)
    assert (answer.status_code, heading(answer)) == (409, "Not done")
    assert words in answer.text
    assert segs(waiting) == []


def test_a_draft_belongs_to_its_session_and_its_study(waiting: Site) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    assert confirmed(client, told["sketch"], job=2).status_code == 409
    assert confirmed(waiting.logged_in(), told["sketch"]).status_code == 409
    assert segs(waiting) == []


def test_the_second_of_two_operators_is_told_who_was_first(waiting: Site) -> None:
    one, other = waiting.logged_in(), waiting.logged_in()
    first, second = (sketched(client, LINE).json()["sketch"] for client in (one, other))
    assert confirmed(one, first).status_code == 303
    answer = confirmed(other, second, more={"person": "Meier^Otto"})
    assert (answer.status_code, heading(answer)) == (409, "Not done")
    assert "Weber^Anna has just confirmed a contour of this study" in answer.text
    assert len(segs(waiting)) == 1


def test_who_confirms_twice_in_a_row_waits_for_the_first_contour(waiting: Site) -> None:
    client = waiting.logged_in()
    first = sketched(client, LINE).json()["sketch"]
    assert confirmed(client, first).status_code == 303
    assert confirmed(client, first).status_code == 303  # the same again changes nothing
    assert len(segs(waiting)) == 1
    for draft in (LINE | {"smooth": 1}, LINE | {"kind": "region", "points": [], "region": "1.5.99/2"}):
        answer = confirmed(client, sketched(client, draft).json()["sketch"])
        assert "Weber^Anna has just confirmed a contour of this study" in answer.text
        assert len(segs(waiting)) == 1
    segs(waiting)[0].unlink()  # somebody took it out of the inbox
    assert confirmed(client, sketched(client, LINE | {"smooth": 2}).json()["sketch"]).status_code == 303


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Refused(ReasonCode.PROMPT_UNSUITABLE, "The box is flat."), 409),
        (Refused(ReasonCode.ROI_NOT_FOUND, "This region does not exist."), 409),
        (Held(ReasonCode.SLICES_MISSING, "Slices are missing."), 409),
        (Unavailable("This study cannot be shown."), 503),
    ],
)
def test_what_the_process_refuses_is_said_and_nothing_is_written(waiting: Site, fault: Exception, status: int) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    viewer: Any = waiting.context.viewer
    viewer.fault = fault
    answer = sketched(client, LINE)
    assert (answer.status_code, answer.text) == (status, str(fault))
    answer = confirmed(client, told["sketch"])
    assert (answer.status_code, heading(answer) == "Not done") == (status, status == 409)
    assert segs(waiting) == []


def test_a_foreign_file_of_the_contour_s_name_is_said_and_left_alone(waiting: Site) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    foreign = waiting.house.inbox / "SEG-2.25.1.dcm"
    foreign.write_bytes(b"another")
    answer = confirmed(client, told["sketch"])
    assert (answer.status_code, heading(answer)) == (409, "Not done")
    assert f"A document cannot be written: {foreign} is a file with other content." in answer.text
    assert foreign.read_bytes() == b"another"
    client.cookies.set("language", "de")
    answer = confirmed(client, told["sketch"])
    assert heading(answer) == "Nicht ausgeführt"
    assert f"Ein Dokument kann nicht geschrieben werden: {foreign} ist eine Datei mit anderem Inhalt." in answer.text
    foreign.unlink()
    assert confirmed(client, told["sketch"]).status_code == 303


def test_an_inbox_that_is_not_known_or_not_writable_is_said(waiting: Site) -> None:
    client = waiting.logged_in()
    told = sketched(client, LINE).json()
    waiting.house.inbox.rename(waiting.house.inbox.with_name("gone"))
    answer = confirmed(client, told["sketch"])
    assert answer.status_code == 503
    assert "could not be written into the inbox" in answer.text
    waiting.context = replace(waiting.context, site=replace(waiting.context.site, inbox=None))
    blind = waiting.logged_in()
    answer = confirmed(blind, sketched(blind, LINE).json()["sketch"])
    assert answer.status_code == 503
    assert "does not know the inbox" in answer.text
