"""Choice of the tumour among the regions of a file: by the user's name, else by the bundle's rule.

If no rule decides, the case is refused and the regions are listed; nothing is guessed. docs/regions.md explains the
rule.
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
_NO_AREA = "it has no contour that encloses an area, and no voxel"
_RENAME = "Give each region its own name in the contouring software, and export again."

# Segmented Property Categories and Types (DICOM PS3.16, CIDs 7150 and 7159) that take precedence over a name.
_ANATOMICAL_STRUCTURE = ("123037004", "SCT")
_NO_PRIMARY = frozenset({("14799000", "SCT"), ("59441001", "SCT")})  # neoplasm, secondary; lymph node


class SelectionRule(Protocol):
    """The part of a bundle's manifest that defines which region is the tumour."""

    @property
    def name_patterns(self) -> tuple[str, ...]:
        """Regular expressions for names, the most specific first."""

    @property
    def excluded_patterns(self) -> tuple[str, ...]:
        """Names that the rule never takes."""

    @property
    def property_types(self) -> tuple[tuple[str, str], ...]:
        """Segmented Property Types that mean the primary tumour."""


def choose(regions: Sequence[Region], rule: SelectionRule, name: str | None) -> Region:
    """Choose the one region to measure.

    Empty regions are ignored; planning systems create them from templates.

    Parameters
    ----------
    regions
        The regions of one RTSTRUCT or SEG.
    rule
        The bundle's rule. A name that :mod:`dicom.tumour_names` excludes is never chosen by it.
    name
        A name given by the user. It takes precedence over the rule and over all exclusions. Case and outer blanks are
        ignored.

    Raises
    ------
    Refused
        ``roi_not_found`` if no region fits; ``roi_ambiguous`` if several fit, or one whose name is not clear. Both list
        the regions. ``roi_empty`` if the fitting region is empty; ``roi_unreadable`` if it is faulty.
    """

    def find(among: Sequence[Region]) -> Region:
        return _choose_by_rule(among, rule) if name is None else _choose_by_name(among, name)

    return _sound(_find_drawn(regions, find))


def _sound(region: Region) -> Region:
    if region.fault:
        message = f"{the_region(region.name)} cannot be used. {region.fault}"
        raise Refused(ReasonCode.ROI_UNREADABLE, message, (region.name,))
    return region


def numbered(regions: Sequence[Region], number: int) -> Region:
    """Return the region that a person chose by its number; this takes precedence over every rule.

    Raises
    ------
    Refused
        ``roi_not_found`` if no region or several regions have the number; ``roi_empty`` if the region is empty;
        ``roi_unreadable`` if it is faulty.
    """
    found = [region for region in regions if region.number == number]
    if len(found) != 1:
        raise Refused(
            ReasonCode.ROI_NOT_FOUND,
            f"Number {number} was chosen, but {len(found) or 'no'} regions have it. Choose one of these: "
            f"{_listed(regions)}",
            _names(regions),
        )
    (region,) = found
    if not region.is_drawn:
        message = f"{the_region(region.name)} is empty: {_NO_AREA}. Choose another region."
        raise Refused(ReasonCode.ROI_EMPTY, message, (region.name,))
    return _sound(region)


def other_tumours(regions: Sequence[Region], chosen: Region) -> tuple[Region, ...]:
    """Return the other regions of a file that may be a tumour; readers of the answer must know about them.

    These are regions with content whose name says gross tumour volume, also of nodes, or that may be the primary
    tumour. Organs are not included.
    """
    others = (region for region in regions if region.is_drawn and region.number != chosen.number)
    return tuple(other for other in others if _may_be_tumour(other))


def _find_drawn(regions: Sequence[Region], find: Callable[[Sequence[Region]], Region]) -> Region:
    """Find a region among those that have content; refuse with ``roi_empty`` if the wanted region has none."""
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
            f"{the_region(empty.name)} is empty: {_NO_AREA}. Draw it, or choose another region {_ASK}. "
            f"These regions are drawn: {_listed(drawn)}",
            (empty.name, *_names(drawn)),
        ) from refused


def _or_none(find: Callable[[Sequence[Region]], Region], among: Sequence[Region]) -> Region | None:
    try:
        return find(among)
    except Refused:
        return None


def _listed(regions: Sequence[Region]) -> str:
    """List the regions, and say how many names cannot be read."""
    names = _names(regions)
    garbled = sum(UNREADABLE in name for name in names)
    if not garbled:
        return f"{listed(names)}."
    what = "1 name is" if garbled == 1 else f"{garbled} names are"
    return (
        f"{listed(names)}. {what} not readable in the file's character set (Specific Character Set, 0008,0005). "
        "Export the file again with the correct character set."
    )


def _names(regions: Sequence[Region]) -> tuple[str, ...]:
    return tuple(region.name for region in regions)


def _matches(pattern: str, region: Region) -> bool:
    return re.fullmatch(pattern, plain(region.name), flags=re.IGNORECASE) is not None


def _choose_by_name(regions: Sequence[Region], name: str) -> Region:
    alike = [region for region in regions if region.name.casefold() == name.strip().casefold()]
    # Names may differ only in case; then case matters.
    wanted = [region for region in alike if region.name == name.strip()] or alike
    if len(wanted) == 1:
        return wanted[0]
    code = ReasonCode.ROI_AMBIGUOUS if wanted else ReasonCode.ROI_NOT_FOUND
    names = _names(regions)
    if wanted:
        message = f"{len(wanted)} regions have the requested name. {_RENAME}"
    else:
        message = f"No region has the requested name. Choose one of these {_ASK}: {_listed(regions)}"
    raise Refused(code, message, names)


def _reading(region: Region) -> Reading:
    """Interpret the name, types and codes of a region together."""
    if in_snomed_ct(region.property_type)[:2] in _NO_PRIMARY:
        return Reading.OTHER
    is_anatomy = in_snomed_ct(region.property_category)[:2] == _ANATOMICAL_STRUCTURE
    return reading(region.name, ("ORGAN",) if is_anatomy else region.interpreted_types)


def _may_be_tumour(region: Region) -> bool:
    return names_gtv(region.name) or "GTV" in region.interpreted_types or _reading(region) is not Reading.OTHER


def _choose_by_rule(regions: Sequence[Region], rule: SelectionRule) -> Region:
    allowed = [r for r in regions if not any(_matches(pattern, r) for pattern in rule.excluded_patterns)]
    # The code of a segment is enough. But its label can exclude it.
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
                f"{the_region(found[0].name)} may be the primary tumour, but its name does not clearly say so. If it "
                f"is, choose it {_ASK}. Otherwise choose another of these: {_listed(regions)}",
                names,
            )
        # A primary tumour and a node may both be coded as neoplasm; their names may still differ.
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
        f"No region has the name of a primary tumour. If one of these is the primary tumour, choose it {_ASK}: "
        f"{_listed(regions)}",
        names,
    )
