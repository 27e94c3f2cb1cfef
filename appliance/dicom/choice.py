"""Which region of a file is the tumour: by the user's word, else by a bundle's rule, else not at all.

What no rule settles is refused with the names there are, never guessed. docs/regions.md says so in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from lungstage.appliance.contract.errors import ReasonCode, Refused
from lungstage.appliance.dicom.charset import UNREADABLE
from lungstage.appliance.dicom.coded import in_snomed_ct
from lungstage.appliance.dicom.names import listed, the_region
from lungstage.appliance.dicom.region import Region
from lungstage.appliance.dicom.tumour_names import Reading, names_gtv, plain, reading, speaks_against

_ASK = "with --roi NAME (daemon: roi_name in the settings)"
_RENAME = "Give each its own name in the contouring software, and export again."

# Segmented Property Categories and Types (DICOM PS3.16, CIDs 7150 and 7159) that speak against a name.
_ANATOMICAL_STRUCTURE = ("123037004", "SCT")
_NO_PRIMARY = frozenset({("14799000", "SCT"), ("59441001", "SCT")})  # neoplasm, secondary; lymph node


class SelectionRule(Protocol):
    """The part of a bundle's manifest that says which region is the tumour."""

    @property
    def name_patterns(self) -> tuple[str, ...]:
        """Regular expressions for names, most telling first."""

    @property
    def excluded_patterns(self) -> tuple[str, ...]:
        """Names that the rule never takes."""

    @property
    def property_types(self) -> tuple[tuple[str, str], ...]:
        """Segmented Property Types that mean the primary tumour."""


def choose(regions: Sequence[Region], rule: SelectionRule, name: str | None) -> Region:
    """Choose the one region to measure.

    Regions that nothing is drawn for, as planning systems make from templates, are passed over.

    Parameters
    ----------
    regions
        What one RTSTRUCT or SEG offers.
    rule
        The bundle's rule. What :mod:`dicom.tumour_names` says against a name outweighs it.
    name
        A name given by the user, which overrides the rule and all that speaks against the name; case and outer blanks
        are ignored.

    Raises
    ------
    Refused
        ``roi_not_found`` where no region fits and ``roi_ambiguous`` where several do, or one whose name leaves it
        open, with the names there are; ``roi_empty`` where nothing is drawn for the one that fits;
        ``roi_unreadable`` where it is faulty.
    """

    def find(among: Sequence[Region]) -> Region:
        return _choose_by_rule(among, rule) if name is None else _choose_by_name(among, name)

    region = _find_drawn(regions, find)
    if region.fault:
        message = f"{the_region(region.name)} cannot be used. {region.fault}"
        raise Refused(ReasonCode.ROI_UNREADABLE, message, (region.name,))
    return region


def other_tumours(regions: Sequence[Region], chosen: Region) -> tuple[Region, ...]:
    """Return what else of a file may be a tumour, which whoever reads the answer must know of.

    Those are drawn regions that are called a gross tumour volume, of whatever, or may be the primary tumour: of nodes,
    too, but not of organs.
    """
    others = (region for region in regions if region.is_drawn and region.number != chosen.number)
    return tuple(other for other in others if _may_be_tumour(other))


def _find_drawn(regions: Sequence[Region], find: Callable[[Sequence[Region]], Region]) -> Region:
    """Find a region among those that have content; say so where the one that is wanted has none."""
    drawn = [region for region in regions if region.is_drawn]
    try:
        return find(drawn)
    except Refused as refused:
        if refused.reason.code != ReasonCode.ROI_NOT_FOUND or len(drawn) == len(regions):
            raise
        empty = _or_none(find, [region for region in regions if not region.is_drawn])
        if empty is None:
            raise
        raise Refused(
            ReasonCode.ROI_EMPTY,
            f"{the_region(empty.name)} is empty: nothing that encloses an area is drawn for it. Draw it, or choose "
            f"another {_ASK}. Drawn are: {_listed(drawn)}",
            (empty.name, *_names(drawn)),
        ) from refused


def _or_none(find: Callable[[Sequence[Region]], Region], among: Sequence[Region]) -> Region | None:
    try:
        return find(among)
    except Refused:
        return None


def _listed(regions: Sequence[Region]) -> str:
    """List the regions there are, and say how many names cannot be read."""
    names = _names(regions)
    garbled = sum(UNREADABLE in name for name in names)
    if not garbled:
        return f"{listed(names)}."
    what = "1 name is" if garbled == 1 else f"{garbled} names are"
    return (
        f"{listed(names)}. {what} not in the character set that the file names (Specific Character Set, (0008,0005)); "
        "export it again with the right one."
    )


def _names(regions: Sequence[Region]) -> tuple[str, ...]:
    return tuple(region.name for region in regions)


def _matches(pattern: str, region: Region) -> bool:
    return re.fullmatch(pattern, plain(region.name), flags=re.IGNORECASE) is not None


def _choose_by_name(regions: Sequence[Region], name: str) -> Region:
    alike = [region for region in regions if region.name.casefold() == name.strip().casefold()]
    # Names may differ in nothing but case; then they are told apart by it.
    wanted = [region for region in alike if region.name == name.strip()] or alike
    if len(wanted) == 1:
        return wanted[0]
    code = ReasonCode.ROI_AMBIGUOUS if wanted else ReasonCode.ROI_NOT_FOUND
    names = _names(regions)
    if wanted:
        message = f"{len(wanted)} regions have the name that was asked for. {_RENAME}"
    else:
        message = f"No region has the name that was asked for. Choose one of these {_ASK}: {_listed(regions)}"
    raise Refused(code, message, names)


def _reading(region: Region) -> Reading:
    """Say what name, types and codes of a region say together."""
    if in_snomed_ct(region.property_type)[:2] in _NO_PRIMARY:
        return Reading.OTHER
    is_anatomy = in_snomed_ct(region.property_category)[:2] == _ANATOMICAL_STRUCTURE
    return reading(region.name, ("ORGAN",) if is_anatomy else region.interpreted_types)


def _may_be_tumour(region: Region) -> bool:
    return names_gtv(region.name) or "GTV" in region.interpreted_types or _reading(region) is not Reading.OTHER


def _choose_by_rule(regions: Sequence[Region], rule: SelectionRule) -> Region:
    allowed = [r for r in regions if not any(_matches(pattern, r) for pattern in rule.excluded_patterns)]
    # What a segment's code says need not be in its label as well; but the label may say that it is something else.
    by_code = [
        r
        for r in allowed
        if r.property_type[:2] in rule.property_types and not (speaks_against(r.name) or UNREADABLE in r.name)
    ]
    by_name = [r for r in allowed if _reading(r) is not Reading.OTHER]
    rounds = [by_code, *([r for r in by_name if _matches(pattern, r)] for pattern in rule.name_patterns)]
    names = _names(regions)
    for found in rounds:
        if len(found) == 1:
            if found is by_code or _reading(found[0]) is Reading.PRIMARY:
                return found[0]
            raise Refused(
                ReasonCode.ROI_AMBIGUOUS,
                f"{the_region(found[0].name)} may be the primary tumour, but its name does not say so plainly. If it "
                f"is, choose it {_ASK}; else choose another of these: {_listed(regions)}",
                names,
            )
        # Two segments may both be coded as neoplasm, primary and node; the names may still tell them apart.
        if len(found) > 1 and found is not by_code:
            break
    possible = _names(next((found for found in rounds if found), ()))
    if possible:
        advice = f"Choose one {_ASK}."
        if len(set(possible)) < len(possible):
            advice = f"{_RENAME} Then choose one {_ASK}."
        raise Refused(
            ReasonCode.ROI_AMBIGUOUS,
            f"{len(possible)} regions could be the primary tumour: {listed(possible)}. {advice}",
            possible,
        )
    raise Refused(
        ReasonCode.ROI_NOT_FOUND,
        f"By its name, no region is the primary tumour. If one is, choose it {_ASK}: {_listed(regions)}",
        names,
    )
