"""The generated parts of ``docs/conformance.md``, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pydicom.pixels import get_decoder
from pydicom.sr.coding import Code
from pydicom.uid import UID, AllTransferSyntaxes, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom._globals import DEFAULT_TRANSFER_SYNTAXES

import lungstage.appliance.dicom.files  # noqa: F401  (which makes pydicom decode JPEG lossless)
from lungstage.appliance.contract.spec import STAGE_GROUP, Endpoint, Stage
from lungstage.appliance.dicom.series import _MAY_LOSE
from lungstage.appliance.report import descriptor_items, measurements, wording
from lungstage.appliance.report import structured_report as report
from lungstage.appliance.report.vocabulary import CONCEPTS, PRIVATE_SCHEME, UNIT_MEANINGS
from tests.long.conformance import notes, tree
from tests.long.conformance.attributes import rows
from tests.long.conformance.geometry import PROOFS


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Render a table in Markdown."""
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in cells)


def _coded(code: Code | None) -> str:
    return "" if code is None else f'({code.value}, {code.scheme_designator}, "{code.meaning}")'


def features() -> str:
    """Each feature's concept, derivation, unit and IBSI identifier."""
    lines = [
        [name.removeprefix("original_"), _coded(c.concept), _coded(c.derivation), f"`{c.unit}`", c.ibsi or ""]
        for name, c in CONCEPTS.items()
    ]
    return table(["feature", "concept name", "Derivation", "unit", "IBSI"], lines)


def units() -> str:
    """UCUM units with their meanings."""
    return table(["UCUM", "meaning"], [[f"`{unit}`", meaning] for unit, meaning in UNIT_MEANINGS.items()])


def private_codes() -> dict[str, str]:
    """All concepts of the private scheme with a fixed code value: meaning by code value."""
    stage = [wording.wording(STAGE_GROUP, absent) for absent in ((), ("IV",))]
    codes = [
        code for one in stage for code in (one.predicted, one.probability, one.contribution, *one.classes.values())
    ]
    codes += [
        measurements.FEATURE,
        measurements.COVARIATE,
        measurements.DOMAIN_DISTANCE,
        measurements.NEIGHBOUR_DISTANCE,
    ]
    codes += [
        measurements.PROBABILITY_LOW,
        measurements.PROBABILITY_HIGH,
        measurements.AGREEMENT,
        measurements.VERSIONS,
        measurements.VARIATION,
        report.ROBUSTNESS,
        report.VARIATIONS,
    ]
    codes += [measurements.PREDICTIVE_VALUE, report.RESULT, report.ANSWER, report.CHANCE, report.REASON]
    codes += [report.CONTRIBUTIONS, report.NOTICE, report.WARNING]
    codes += [concept.concept for concept in CONCEPTS.values()]
    codes += descriptor_items.codes_used()
    return {code.value: code.meaning for code in codes if code.scheme_designator == PRIVATE_SCHEME}


def private() -> str:
    """Concepts of the private scheme, and the form of those for another endpoint."""
    other = wording.wording(Endpoint("ENDPOINT", "NEGATIVE", "POSITIVE"))
    named = [
        other.predicted,
        other.probability,
        other.contribution,
        other.classes[Stage.EARLY],
        other.classes[Stage.ADVANCED],
    ]
    lines = [[f"`{value}`", meaning] for value, meaning in private_codes().items()]
    lines += [[f"`{code.value.partition('-')[0]}-`HASH", code.meaning] for code in named]
    return table(["code value", "code meaning"], lines)


def transfer_syntaxes() -> str:
    """All transfer syntaxes that lungstage decodes pixels from."""
    lines = [
        [uid, uid.name, "may be lossy: a warning" if uid in _MAY_LOSE else "lossless"]
        for uid in AllTransferSyntaxes
        if can_decode(uid)
    ]
    return table(["UID", "transfer syntax", "pixels"], lines)


def can_decode(uid: UID) -> bool:
    """Whether pydicom has a decoder for it."""
    try:
        return bool(get_decoder(uid).is_available)
    except NotImplementedError:
        return False


def proofs() -> str:
    """Geometry: the requirements, their tolerances, and the reason codes."""
    return table(["requirement", "tolerance", "reason code"], [[p.what, p.tolerance, f"`{p.code}`"] for p in PROOFS])


def contexts_in() -> str:
    """Presentation contexts that the gateway accepts."""
    from lungstage.appliance.gateway import contexts

    lines = [["Verification", contexts.VERIFICATION, ", ".join(DEFAULT_TRANSFER_SYNTAXES), "SCP"]]
    lines += [
        [UID(uid).name if UID(uid).name != uid else "Label Map Segmentation Storage", uid, _syntaxes(syntaxes), "SCP"]
        for uid, syntaxes in contexts.RECEIVED.items()
    ]
    lines.append(
        [contexts.COMMITMENT.name, contexts.COMMITMENT, ", ".join(DEFAULT_TRANSFER_SYNTAXES), "SCU, by role selection"]
    )
    return table(["SOP Class", "UID", "transfer syntaxes", "role"], lines)


def contexts_out() -> str:
    """Presentation contexts that the gateway proposes."""
    from lungstage.appliance.gateway import contexts
    from lungstage.appliance.gateway.destinations.archive import FIND

    both = f"{ExplicitVRLittleEndian}, {ImplicitVRLittleEndian}"
    lines = [["Verification", contexts.VERIFICATION, ", ".join(DEFAULT_TRANSFER_SYNTAXES)]]
    lines.append([UID(FIND).name, FIND, both])
    lines += [[uid.name, uid, ExplicitVRLittleEndian] for uid in contexts.SENT.values()]
    lines.append([contexts.COMMITMENT.name, contexts.COMMITMENT, both])
    return table(["SOP Class", "UID", "transfer syntaxes"], lines)


def _syntaxes(uids: Sequence[UID]) -> str:
    from lungstage.appliance.gateway import contexts

    return "all in [the table](#transfer-syntaxes)" if set(uids) == set(contexts.PIXELS) else ", ".join(uids)


def report_rules() -> str:
    """The rules that a report is checked by before it is sent."""
    from lungstage.appliance.report.preflight import RULES

    return table(["rule", "source", "requirement"], [[f"`{r.name}`", r.source, r.sentence] for r in RULES])


_ATTRIBUTES = ["attribute", "module", "presence", "source", "value"]

TABLES: Mapping[str, Callable[[], str]] = {
    "transfer-syntaxes": transfer_syntaxes,
    "geometry": proofs,
    "sr-attributes": lambda: table(_ATTRIBUTES, rows("SR", notes.SR)),
    "sr-tree": lambda: table(["value type", "relationship", "concept name", "number", "value"], tree.rows(notes.TREE)),
    "seg-attributes": lambda: table(_ATTRIBUTES, rows("SEG", notes.SEG)),
    "features": features,
    "units": units,
    "private-codes": private,
    "contexts-in": contexts_in,
    "contexts-out": contexts_out,
    "report-rules": report_rules,
}
