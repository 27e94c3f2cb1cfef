"""Which images and which regions of interest belong together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lungstage.appliance.contract.errors import Held, ReasonCode, Refused
from lungstage.appliance.dicom.files import with_pixel_digest
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.dicom.identity import count_patients
from lungstage.appliance.dicom.names import counted

_TOLD = 4  # series that a message describes

HeaderT = TypeVar("HeaderT", ImageHeader, RoiHeader)


@dataclass(frozen=True, slots=True)
class Case:
    """A series, the ROI objects that point at it, or whichever of the two has arrived so far.

    Attributes
    ----------
    key
        Stable name: the Series Instance UID where it is known, else the ROI object's SOP Instance UID.
    study_instance_uid, series_instance_uid
        Of the images; the series is None while it is unknown.
    images
        In order of SOP Instance UID and frame; identical copies are dropped, conflicting ones are kept.
    rois
        In order of SOP Instance UID.
    candidates
        Series that the ROI could belong to, where nothing but the Frame of Reference speaks for one of them and
        there are several; such a case is ambiguous.
    neighbours
        Other CT series in the Frames of Reference of its ROI objects.
    elsewhere
        Instances of these and of any other CT series that its ROI objects name or list. An object that names several
        series is held by the case of each; whose the chosen region is, :mod:`dicom.linking` says.
    """

    key: str
    study_instance_uid: str
    series_instance_uid: str | None
    images: tuple[ImageHeader, ...]
    rois: tuple[RoiHeader, ...]
    candidates: tuple[str, ...] = ()
    neighbours: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()

    @property
    def headers(self) -> tuple[Header, ...]:
        """Everything that it holds, the ROI objects first."""
        return (*self.rois, *self.images)

    @property
    def instances(self) -> frozenset[str]:
        """SOP Instance UIDs of the images."""
        return frozenset(image.sop_instance_uid for image in self.images)


def _distinct(headers: Iterable[HeaderT]) -> tuple[HeaderT, ...]:
    """Drop copies that are equal in content; keep, of each, the one with the first path."""
    alike: dict[tuple[str, int, str], list[HeaderT]] = defaultdict(list)
    for header in sorted(headers, key=lambda h: str(h.path)):
        frame = header.frame if isinstance(header, ImageHeader) else 0
        alike[header.sop_instance_uid, frame, header.digest].append(header)
    return tuple(header for key in sorted(alike) for header in _unlike(alike[key]))


def _unlike(headers: list[HeaderT]) -> tuple[HeaderT, ...]:
    """Tell images apart by their pixels, which only files that claim to be copies need to be read for."""
    if len(headers) == 1 or isinstance(headers[0], RoiHeader):
        return (headers[0],)
    kept: dict[str, HeaderT] = {}
    for image in map(with_pixel_digest, headers):
        kept.setdefault(image.pixel_digest, image)
    return tuple(kept[digest] for digest in sorted(kept))


class _Series:
    """All image series seen, with the look-ups that linking needs."""

    def __init__(self, images: Iterable[ImageHeader]) -> None:
        self.images: dict[str, list[ImageHeader]] = defaultdict(list)
        self.of_instance: dict[str, set[str]] = defaultdict(set)
        self.of_frame: dict[str, set[str]] = defaultdict(set)
        for image in images:
            self.images[image.series_instance_uid].append(image)
            self.of_instance[image.sop_instance_uid].add(image.series_instance_uid)
            if image.is_ct_slice:
                self.of_frame[image.frame_of_reference_uid].add(image.series_instance_uid)

    def named_by(self, roi: RoiHeader) -> tuple[str, ...]:
        """Series that `roi` names: by instances of contours or frames, else by those that it lists, else by series."""
        for references in (roi.image_references, _listed(roi)):
            named = self._holding(references)
            if named:
                return tuple(sorted(named))
        return tuple(sorted({uid for uid, _ in roi.listed if uid in self.images}))

    def _holding(self, instances: Iterable[str]) -> set[str]:
        return {series for uid in instances if uid in self.of_instance for series in self.of_instance[uid]}

    def sharing_frame(self, roi: RoiHeader) -> tuple[str, ...]:
        """CT series in the Frame of Reference of `roi`."""
        frames = [self.of_frame[uid] for uid in roi.frames_of_reference if uid in self.of_frame]
        return tuple(sorted(set().union(*frames)))

    def case(self, uid: str, rois: tuple[RoiHeader, ...]) -> Case:
        """Case of a series, seen or expected, with the objects that are linked with it."""
        images = _distinct(self.images.get(uid, ()))
        study = images[0].study_instance_uid if images else rois[0].study_instance_uid
        neighbours = {other for roi in rois for other in self.sharing_frame(roi)} - {uid}
        ct = set().union(*self.of_frame.values()) - {uid}
        named = {name for roi in rois for name in (*roi.image_references, *_listed(roi))}
        elsewhere = {name for name in named if self._holding([name]) & ct}
        return Case(uid, study, uid, images, rois, (), tuple(sorted(neighbours)), tuple(sorted(elsewhere)))


def _listed(roi: RoiHeader) -> list[str]:
    return [instance for _, instances in roi.listed for instance in instances]


def assemble(headers: Iterable[Header]) -> tuple[Case, ...]:
    """Group everything that has been seen into cases.

    A ROI object is linked with every series that its contours or frames name, else with every one that it lists, else
    with the one CT series in its Frame of Reference (where it names other images, only if no other object claims that
    series). To which of several series the region belongs that will be chosen, only its own contours or frames can say.
    Patient and study are *not* compared here, so that a ROI which names another patient's images is found out by
    :func:`staging.pipeline.prepare` and not overlooked.

    Returns
    -------
    tuple of Case
        One for every series, and one for every ROI object without a series, in order of their keys.
    """
    every = tuple(headers)
    series = _Series(h for h in every if isinstance(h, ImageHeader))
    linked: dict[str, list[RoiHeader]] = defaultdict(list)
    unnamed: list[RoiHeader] = []
    for roi in _distinct(h for h in every if isinstance(h, RoiHeader)):
        named = series.named_by(roi)
        for uid in named:
            linked[uid].append(roi)
        if not named:
            unnamed.append(roi)
    spoken_for = frozenset(linked)
    orphans: list[Case] = []
    for roi in unnamed:
        candidates = series.sharing_frame(roi)
        if roi.listed or roi.image_references:
            # It names images that are not there. It may be held beside others of its Frame of Reference, but it must
            # not stand in the way of a series that has a region of its own.
            candidates = tuple(uid for uid in candidates if uid not in spoken_for)
            candidates = candidates if len(candidates) == 1 else ()
        if len(candidates) == 1:
            linked[candidates[0]].append(roi)
            continue
        # One listed series that has not come yet names the case, so that the case keeps its name when it comes.
        expected = roi.listed[0][0] if len(roi.listed) == 1 and not candidates else None
        if expected:
            linked[expected].append(roi)
        else:
            orphans.append(Case(roi.sop_instance_uid, roi.study_instance_uid, None, (), (roi,), candidates))
    cases = [series.case(uid, tuple(linked.get(uid, ()))) for uid in {*series.images, *linked}]
    return tuple(sorted([*orphans, *cases], key=lambda case: case.key))


def ct_missing(rois: Iterable[RoiHeader]) -> Held:
    """Say that a region has come without its CT, and which series that is, where its file lists one alone."""
    series = {uid for roi in rois for uid, _ in roi.listed if uid}
    uid = min(series) if len(series) == 1 else ""
    return Held(
        ReasonCode.CT_MISSING,
        f"The CT that the region was drawn on is not there{f' (Series Instance UID {uid})' if uid else ''}. Send that "
        "CT series from the PACS.",
    )


def undecided(rois: Sequence[RoiHeader], series: Iterable[Sequence[ImageHeader]]) -> str:
    """Say that nothing tells on which of several series the region was drawn, and what would."""
    kinds = " or ".join(sorted({roi.kind for roi in rois}))
    series = [images for images in series if images]
    if len(series) > _TOLD and all(len(images) == 1 for images in series):
        return (
            f"The {kinds} names {len(series)} CT series of one slice each. If an anonymiser or archive has split one "
            "series, send it with one Series Instance UID (0020,000E) for all of its slices."
        )
    return (
        f"Nothing in the {kinds} says on which CT series the region was drawn: {_described(series)}. Export the "
        f"{kinds} again from the series on which it was drawn, so that it names that series' images and no others; to "
        "leave a series out is not enough."
    )


def _described(series: Iterable[Sequence[ImageHeader]]) -> str:
    """Tell series apart by what is nobody's name."""
    every = [_description(images) for images in series if images]
    more = len(every) - _TOLD
    return ", ".join(every[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def _description(images: Sequence[ImageHeader]) -> str:
    thicknesses = {image.slice_thickness for image in images}
    (thickness,) = thicknesses if len(thicknesses) == 1 else (None,)
    each = "" if thickness is None else f" of {thickness:g} mm"
    return f"series {images[0].series_instance_uid} ({counted(len(images), 'slice')}{each})"


def the_one_case(cases: Iterable[Case], has_its_region: Callable[[Case], bool] = lambda _: True) -> Case:
    """Return the single case that a one-shot command can mean.

    Parameters
    ----------
    cases
        Of all that was given.
    has_its_region
        Tells, where several series are linked with ROI objects, on which of them the region was drawn.

    Raises
    ------
    Refused
        ``no_dicom``, ``not_ct`` or ``ambiguous_input`` (several patients, or several studies or series that each
        have a ROI, or none of several has one).
    Held
        ``no_roi`` or ``ct_missing``.
    """
    every = tuple(cases)
    if not every:
        raise Refused(
            ReasonCode.NO_DICOM,
            "None of the files is a DICOM image, RTSTRUCT or SEG. Name the folder of the CT and its RTSTRUCT or SEG; "
            "unpack it first if it is an archive (.zip, .gz).",
        )
    ct = [case for case in every if any(image.is_ct_slice for image in case.images)]
    patients = count_patients(image for case in ct for image in case.images)
    if patients > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The input holds CT of {patients} patients. Put one patient's study into a folder of its own, and name "
            "that.",
        )
    wanted = [case for case in every if case.rois and (case.images or case.candidates)]
    meant = [case for case in wanted if has_its_region(case)] if len(wanted) > 1 else wanted
    if not meant and len({case.rois for case in wanted}) == 1:
        meant = wanted[:1]  # one file, which is at fault whatever it was drawn on
    if len(meant) == 1:
        return meant[0]
    if len(meant) > 1 and len({case.rois for case in meant}) == 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            undecided(meant[0].rois, (case.images for case in meant)),
        )
    if len(wanted) > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The input holds {len(wanted)} series with an RTSTRUCT or SEG: "
            f"{_described(case.images for case in wanted)}. Give the files of one series, and its RTSTRUCT or SEG.",
        )
    if any(case.rois for case in every):
        raise ct_missing(roi for case in every for roi in case.rois)
    if not ct:
        raise Refused(
            ReasonCode.NOT_CT, "The input holds images, but no CT. Send the CT series that the region was drawn on."
        )
    if len(ct) > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The input holds {len(ct)} CT series and no RTSTRUCT or SEG: {_described(case.images for case in ct)}. "
            "Give one, with the RTSTRUCT or SEG that was drawn on it.",
        )
    return ct[0]
