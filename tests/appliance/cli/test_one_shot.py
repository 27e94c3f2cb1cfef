"""What ``lungstage stage`` tells a person at the end: where that which was written lies."""

from __future__ import annotations

from lungstage.appliance.cli.one_shot import in_words
from lungstage.appliance.contract.errors import Reason, ReasonCode
from lungstage.appliance.staging.outcome import outcome


def test_the_page_of_a_refusal_is_found() -> None:
    refused = outcome(status="refused", reason=Reason(ReasonCode.NO_ROI, "There is no region."))
    assert in_words(refused) == "refused: There is no region. [no_roi]"
    told = in_words(refused | {"documents": {"pdf": "out/PDF-2.25.1.dcm", "sc": "out/SC-2.25.2.dcm"}})
    assert told.splitlines()[1:] == ["page (PDF): out/PDF-2.25.1.dcm", "page (picture): out/SC-2.25.2.dcm"]
