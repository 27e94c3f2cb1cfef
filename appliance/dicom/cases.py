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

_TOLD = 4  # series described in a message

HeaderT = TypeVar("HeaderT", ImageHeader, RoiHeader)


@dataclass(frozen=True, slots=True)
class Case:
    """A series and the ROI objects that refer to it, as far as they have arrived.

    Attributes
    ----------
    key
        Stable name: the Series Instance UID if it is known, else the SOP Instance UID of the ROI object.
    study_instance_uid, series_instance_uid
        UIDs of the images' study and series; the series is None while it is unknown.
    images
        In order of SOP Instance UID and frame; identical copies are dropped, conflicting ones are kept.
    rois
        In order of SOP Instance UID.
    candidates
        Several series that the ROI object could belong to because of its Frame of Reference only; such a case is
        ambiguous.
    neighbours
        Other CT series in the Frames of Reference of its ROI objects.
    elsewhere
        Instances of other CT series that its ROI objects refer to or list. An object that refers to several series is
        in the case of each; :mod:`dicom.linking` decides to which series the chosen region belongs.
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
        """All headers of the case, the ROI objects first."""
        return (*self.rois, *self.images)

    @property
    def instances(self) -> frozenset[str]:
        """SOP Instance UIDs of the images."""
        return frozenset(image.sop_instance_uid for image in self.images)


def _distinct(headers: Iterable[HeaderT]) -> tuple[HeaderT, ...]:
    """Drop copies with equal content; of each, keep the one with the first path."""
    alike: dict[tuple[str, int, str], list[HeaderT]] = defaultdict(list)
    for header in sorted(headers, key=lambda h: str(h.path)):
        frame = header.frame if isinstance(header, ImageHeader) else 0
        alike[header.sop_instance_uid, frame, header.digest].append(header)
    return tuple(header for key in sorted(alike) for header in _unlike(alike[key]))


def _unlike(headers: list[HeaderT]) -> tuple[HeaderT, ...]:
    """Drop copies with equal pixels; pixels are read only if several files have the same header."""
    if len(headers) == 1 or isinstance(headers[0], RoiHeader):
        return (headers[0],)
    kept: dict[str, HeaderT] = {}
    for image in map(with_pixel_digest, headers):
        kept.setdefault(image.pixel_digest, image)
    return tuple(kept[digest] for digest in sorted(kept))


class _Series:
    """All image series, with the look-ups that linking needs."""

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
        """Series that `roi` refers to: by instances of contours or frames, else by listed instances, else by series."""
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
        """Case of a present or expected series, with the ROI objects linked to it."""
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
    """Group all headers into cases.

    A ROI object is linked to every series that its contours or frames refer to, else to every series that it lists,
    else to the only CT series in its Frame of Reference. If it refers to other images, the last rule applies only if no
    other object is linked to that series. With several series, the contours or frames of the region that is chosen
    later decide. Patient and study are *not* compared here. So :func:`staging.pipeline.prepare` can detect a ROI object
    that refers to another patient's images.

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
            # It refers to images that are missing. It may be held with another series of its Frame of Reference, but
            # not with a series that already has its own region.
            candidates = tuple(uid for uid in candidates if uid not in spoken_for)
            candidates = candidates if len(candidates) == 1 else ()
        if len(candidates) == 1:
            linked[candidates[0]].append(roi)
            continue
        # A single listed series gives the case its key before it arrives, so the key stays the same.
        expected = roi.listed[0][0] if len(roi.listed) == 1 and not candidates else None
        if expected:
            linked[expected].append(roi)
        else:
            orphans.append(Case(roi.sop_instance_uid, roi.study_instance_uid, None, (), (roi,), candidates))
    cases = [series.case(uid, tuple(linked.get(uid, ()))) for uid in {*series.images, *linked}]
    return tuple(sorted([*orphans, *cases], key=lambda case: case.key))


def ct_missing(rois: Iterable[RoiHeader]) -> Held:
    """Return the hold for a region without its CT; it names the series if the region's file lists only one."""
    series = {uid for roi in rois for uid, _ in roi.listed if uid}
    uid = min(series) if len(series) == 1 else ""
    return Held(
        ReasonCode.CT_MISSING,
        f"The CT series that the region was drawn on is missing{f' (Series Instance UID {uid})' if uid else ''}. Send "
        "that CT series from the PACS.",
    )


def undecided(rois: Sequence[RoiHeader], series: Iterable[Sequence[ImageHeader]]) -> str:
    """Say that it is not clear on which of several series the region was drawn, with the next step."""
    kinds = " or ".join(sorted({roi.kind for roi in rois}))
    series = [images for images in series if images]
    if len(series) > _TOLD and all(len(images) == 1 for images in series):
        return (
            f"The {kinds} refers to {len(series)} CT series of one slice each. If an anonymiser or archive has split "
            "one series, send it with one Series Instance UID (0020,000E) for all of its slices."
        )
    return (
        f"The {kinds} does not show on which CT series the region was drawn: {_described(series)}. Export the {kinds} "
        "again from the series on which it was drawn. It must refer to the images of that series only; sending fewer "
        "series is not enough."
    )


def _described(series: Iterable[Sequence[ImageHeader]]) -> str:
    """Describe series without any names of people."""
    every = [_description(images) for images in series if images]
    more = len(every) - _TOLD
    return ", ".join(every[:_TOLD]) + (f" and {more} more" if more > 0 else "")


def _description(images: Sequence[ImageHeader]) -> str:
    thicknesses = {image.slice_thickness for image in images}
    (thickness,) = thicknesses if len(thicknesses) == 1 else (None,)
    each = "" if thickness is None else f" of {thickness:g} mm"
    return f"series {images[0].series_instance_uid} ({counted(len(images), 'slice')}{each})"


def the_one_case(cases: Iterable[Case], has_its_region: Callable[[Case], bool] = lambda _: True) -> Case:
    """Return the single case for a one-shot command.

    Parameters
    ----------
    cases
        All cases of the input.
    has_its_region
        Whether the region was drawn on the series of a case; used if several series are linked with ROI objects.

    Raises
    ------
    Refused
        ``no_dicom``, ``not_ct`` or ``ambiguous_input`` (several patients; or several studies or series with a ROI
        object; or several without one).
    Held
        ``no_roi`` or ``ct_missing``.
    """
    every = tuple(cases)
    if not every:
        raise Refused(
            ReasonCode.NO_DICOM,
            "None of the files is a DICOM image, RTSTRUCT or SEG. Give the folder of the CT and its RTSTRUCT or SEG. "
            "Unpack an archive (.zip, .gz) first.",
        )
    ct = [case for case in every if any(image.is_ct_slice for image in case.images)]
    patients = count_patients(image for case in ct for image in case.images)
    if patients > 1:
        raise Refused(
            ReasonCode.AMBIGUOUS_INPUT,
            f"The input holds CT of {patients} patients. Give a folder that contains the study of one patient only.",
        )
    wanted = [case for case in every if case.rois and (case.images or case.candidates)]
    meant = [case for case in wanted if has_its_region(case)] if len(wanted) > 1 else wanted
    if not meant and len({case.rois for case in wanted}) == 1:
        meant = wanted[:1]  # one file that is faulty for every series
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
            "Give one series, with the RTSTRUCT or SEG that was drawn on it.",
        )
    return ct[0]
