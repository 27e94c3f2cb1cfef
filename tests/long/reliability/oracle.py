"""The unambiguous content of a study's files, and the numbers that stock software computes from it.

No code of the appliance is used: :mod:`long.reliability.strict` reads files, GDCM decodes compressed pixels, contours
are filled by counting crossings, and stock PyRadiomics computes features. An answer is right if it equals this result.
"""

from __future__ import annotations

import hashlib
import itertools
import struct
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import radiomics
import SimpleITK as sitk
from scipy.spatial import KDTree

from tests.long.reliability.strict import PIXEL_DATA, Contradiction, Dataset, Element, read

Floats = npt.NDArray[np.float64]

_ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
_CT, _RTSTRUCT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.481.3"
_SEG, _LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
_TERMS = (0x00181210, 0x00080008, 0x00180060, 0x00181100, 0x00200100, 0x00200012)  # conformance.md
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99")

radiomics.setVerbosity(60)


class Untold(Contradiction):
    """The right answer follows from rules that this reader does not have, so it cannot verify it."""


@dataclass(frozen=True)
class Slice:
    """One CT slice, read strictly; lengths in mm."""

    uid: str
    series: str
    identity: tuple[str, str]  # study, Frame of Reference
    patient: tuple[str, str, str]
    position: Floats
    orientation: Floats
    spacing: tuple[float, float]
    declared: tuple[float, ...]  # spacings in the header
    terms: tuple[str, ...]  # terms that distinguish acquisitions
    hu: npt.NDArray[Any]


@dataclass(frozen=True)
class Facts:
    """What is measured: the region's slices and one to either side, as voxels."""

    hu: npt.NDArray[Any]
    mask: npt.NDArray[np.bool_]
    spacing: tuple[float, float, float]  # slice, row, column
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    positions: tuple[tuple[float, ...], ...]
    clipped: bool  # a slice to one side is missing
    patients: frozenset[tuple[str, str, str]]  # named by the slices; they may all be equal

    @property
    def digest(self) -> str:
        """Return the digest of everything that a number depends on."""
        parts = (self.hu.tobytes(), str(self.hu.dtype), self.mask.tobytes(), self.spacing, self.origin, self.direction)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    @property
    def voxels(self) -> int:
        return int(self.mask.sum())

    def drawn(self) -> Floats:
        """Return the positions (voxels, 3) in mm of the region's voxels, each from its own slice's position."""
        row, column = np.reshape(self.direction, (3, 3)).T[:2]
        places = []
        for plane, position in zip(self.mask, self.positions, strict=True):
            r, c = np.nonzero(plane)
            places.append(position + np.outer(r * self.spacing[1], column) + np.outer(c * self.spacing[2], row))
        return np.concatenate(places)

    def is_drawn_at(self, places: Floats) -> bool:
        """Whether the region's voxels are at these positions in mm, each once, within 0.01 mm.

        A document has the original directions of the slices. The cleaned directions differ from them by up to 1e-4
        (conformance.md), so the allowed distance grows with the distance from the first pixel.
        """
        own = self.drawn()
        distances, nearest = KDTree(own).query(places)
        allowed = 0.01 + 1e-4 * np.linalg.norm(places - self.origin, axis=1)
        return np.array_equal(np.sort(nearest), np.arange(len(own))) and bool((distances <= allowed).all())


def _pixels(syntax: str, dataset: Dataset) -> npt.NDArray[Any]:
    """Return the stored values (rows, columns) of one frame."""
    rows, columns = dataset.integer(0x00280010), dataset.integer(0x00280011)
    allocated, stored, high = (dataset.integer(0x00280100 + k) for k in range(3))
    signed = dataset.integer(0x00280103)
    if dataset.integer(0x00280002) != 1 or allocated not in (8, 16, 32) or signed not in (0, 1):
        raise Contradiction("not a grey image")
    if high != stored - 1 or not 0 < stored <= allocated:
        raise Contradiction("the bits that are stored are not the lowest ones")
    kind = np.dtype(f"{dataset.order}{'i' if signed else 'u'}{allocated // 8}")
    if syntax in _NATIVE:
        value = dataset.raw(PIXEL_DATA)
        size = rows * columns * kind.itemsize
        if not _is_all(value, size, min(rows, columns) * kind.itemsize):
            raise Contradiction("there are more or fewer pixels than rows times columns")
        words = np.frombuffer(value[:size], dtype=kind).reshape(rows, columns).astype(np.int64)
    else:
        stream = b"".join(dataset[PIXEL_DATA].fragments) if PIXEL_DATA in dataset else b""
        start = stream.find(b"\xff\xf7")  # JPEG-LS's start of frame; the byte after its length is the precision
        if start >= 0 and stream[start + 4] != stored:
            raise Contradiction("as many bits were not compressed")
        words = _by_gdcm(syntax, stream, (rows, columns, allocated, stored, high, signed)).astype(np.int64)
        if words.shape != (rows, columns):
            raise Contradiction("another matrix was compressed")
    words &= (1 << stored) - 1
    return np.where(words >> (stored - 1) & signed == 1, words - (1 << stored), words)


def _is_all(value: bytes, size: int, limit: int) -> bool:
    """Whether pixels are complete, and followed by a pad or by fewer zeros than one row and one column take."""
    excess = len(value) - size
    return 0 <= excess <= size % 2 or (0 < excess < limit and not any(value[size:]))


def _by_gdcm(syntax: str, stream: bytes, encoding: tuple[int, ...]) -> npt.NDArray[Any]:
    """Decode one compressed frame, from a file with only the elements needed for it."""

    def element(tag: int, vr: str, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value

    meta = element(0x00020002, "UI", _CT.encode()) + element(0x00020010, "UI", syntax.encode())
    head = element(0x00080016, "UI", _CT.encode()) + element(0x00280002, "US", b"\1\0")
    head += element(0x00280004, "CS", b"MONOCHROME2 ")  # the other one is for display, and ITK would invert it
    tags = (0x00280010, 0x00280011, 0x00280100, 0x00280101, 0x00280102, 0x00280103)
    head += b"".join(element(tag, "US", struct.pack("<H", n)) for tag, n in zip(tags, encoding, strict=True))
    stream += b"\0" * (len(stream) % 2)
    item = b"\xfe\xff\0\xe0"
    items = item + bytes(4) + item + struct.pack("<I", len(stream)) + stream + b"\xfe\xff\xdd\xe0" + bytes(4)
    pixels = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + items
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slice.dcm")
        length = element(0x00020000, "UL", struct.pack("<I", len(meta)))
        path.write_bytes(bytes(128) + b"DICM" + length + meta + head + pixels)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("GDCMImageIO")
        reader.SetFileName(str(path))
        try:
            image = sitk.GetArrayFromImage(reader.Execute())
        except RuntimeError as error:
            raise Contradiction("GDCM cannot decode it") from error
    return np.asarray(image.reshape(image.shape[-2:]))


def _slice(syntax: str, dataset: Dataset) -> Slice:
    slope, intercept = dataset.decimals(0x00281053, 1)[0], dataset.decimals(0x00281052, 1)[0]
    if dataset.text(0x00281054) not in ("", "HU", "US") or slope <= 0:
        raise Contradiction("the values are no HU")
    if 0x00180120 in dataset or any(abs(t) > 0.05 for t in _tilt(dataset)):
        raise Contradiction("the gantry is tilted")
    stored = _pixels(syntax, dataset)
    hu = stored * slope + intercept
    if slope.is_integer() and intercept.is_integer():
        hu = hu.astype(np.int64)
    return Slice(
        uid=dataset.uid(0x00080018),
        series=dataset.uid(0x0020000E),
        identity=(dataset.uid(0x0020000D), dataset.text(0x00200052)),
        patient=_patient(dataset),
        position=np.array(dataset.decimals(0x00200032, 3)),
        orientation=_clean(dataset.decimals(0x00200037, 6)),
        spacing=tuple(dataset.decimals(0x00280030, 2)),  # type: ignore[arg-type]
        declared=tuple(_declared(dataset)),
        terms=tuple(_term(dataset, tag) for tag in _TERMS),
        hu=hu,
    )


def _term(dataset: Dataset, tag: int) -> str:
    """Read a term strictly, numbers by their value; a representation that is not text gives nothing."""
    try:
        value = dataset.text(tag)
    except Contradiction:
        return ""
    with suppress(ValueError):
        return str(float(value))
    return value


def _clean(cosines: Sequence[float]) -> Floats:
    """Remove the noise of the directions' last digits: return the patient's axes, or a rotation's columns."""
    axes = np.array(cosines).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), rtol=0, atol=1e-4):
        return axes
    if np.allclose(axes, axes.round(), rtol=0, atol=1e-4):
        return axes.round() + 0.0
    q, r = np.linalg.qr(axes.T)
    return np.asarray((q * np.sign(np.diag(r))).T)


def _tilt(dataset: Dataset) -> list[float]:
    """Return the gantry tilt if it is one number; position and orientation also give it."""
    try:
        return _optional(dataset, 0x00181120)
    except Contradiction:
        return []


def _optional(dataset: Dataset, tag: int) -> list[float]:
    return dataset.decimals(tag, 1) if dataset.raw(tag).strip(b" \0") else []


def _declared(dataset: Dataset) -> list[float]:
    """Return Spacing Between Slices and Slice Thickness; several numbers count as none."""
    told = [dataset.decimals(tag) for tag in (0x00180088, 0x00180050) if dataset.raw(tag).strip(b" \0")]
    return [numbers[0] for numbers in told if len(numbers) == 1]


def _frames(syntax: str, whole: Dataset) -> list[Slice]:
    """Return the slices of an Enhanced CT; functional groups take precedence (PS3.3 C.7.6.16)."""
    groups, count = whole.items(0x52009230), whole.integer(0x00280008)
    pixels = _by_frame(syntax, whole, count)
    if not len(groups) == count == len(pixels):
        raise Contradiction("frames, their descriptions and their pixels do not fit")
    slices = []
    for number, group in enumerate(groups):
        frame = Dataset(whole)
        frame.order = whole.order
        for functional_group in (*whole.items(0x52009229), group):
            for macro in functional_group.values():
                for item in macro.items:
                    frame.update(item)
        if 0x00089007 in frame:
            frame[0x00080008] = frame[0x00089007]
        frame[PIXEL_DATA] = pixels[number]
        one = _slice(syntax, frame)
        if "LOCALIZER" not in frame.text(0x00080008):
            slices.append(replace(one, uid=f"{one.uid} frame {number + 1}"))
    return slices


def _by_frame(syntax: str, whole: Dataset, count: int) -> list[Element]:
    """Return the pixels of `count` frames; compressed frames must be one fragment each."""
    if syntax not in _NATIVE:
        fragments = whole[PIXEL_DATA].fragments if PIXEL_DATA in whole else []
        return [Element("OB", fragments=[fragment]) for fragment in fragments]
    value = whole.raw(PIXEL_DATA)
    rows, columns, bits = (whole.integer(tag) for tag in (0x00280010, 0x00280011, 0x00280100))
    size = rows * columns * bits // 8
    limit = min(rows, columns) * bits // 8 if count == 1 or size % 4 == 0 else 0
    if count < 1 or not size or not _is_all(value, size * count, limit):
        return []
    return [Element("OW", value[k * size : (k + 1) * size]) for k in range(count)]


@lru_cache(maxsize=512)
def _read(content: bytes) -> Slice | list[Slice] | tuple[str, Dataset, bytes] | None:
    """Read one file: CT slices, a region object (its class, elements and file), or nothing of these."""
    syntax, dataset = read(content)
    sop_class = dataset.uid(0x00080016)
    if sop_class == _ENHANCED_CT:
        return _frames(syntax, dataset)
    if sop_class == _CT:
        several = bool(dataset.text(0x00280008)) and dataset.integer(0x00280008) != 1
        if "LOCALIZER" in dataset.text(0x00080008) or several:
            return None
        if dataset.text(0x00080060) not in ("", "CT"):
            raise Contradiction("a CT image of another modality")
        return _slice(syntax, dataset)
    if sop_class in (_RTSTRUCT, _SEG, _LABEL_MAP):
        return sop_class, dataset, content
    return None


class _Stack:
    """The slices of one series, sorted along their normal."""

    def __init__(self, slices: Sequence[Slice], *meant: set[str]) -> None:
        """If slices share a position, keep those in the first set of `meant` that contains one of them."""
        self.meant = meant
        ((common, _),) = Counter(tuple(s.orientation.ravel().round(3)) for s in slices).most_common(1)
        facing = [s for s in slices if np.allclose(s.orientation.ravel(), common, atol=2e-3)]
        self.normal = np.cross(*facing[0].orientation)
        self.slices = sorted(facing, key=lambda s: float(s.position @ self.normal))
        self.depths = np.array([float(s.position @ self.normal) for s in self.slices])
        gaps = np.diff(self.depths)
        gaps = gaps[gaps > 0.005]
        self.step = float(np.median(gaps)) if gaps.size else 1.0

    def find(self, depth: float, tolerance: float) -> int | None:
        hits = np.flatnonzero(np.abs(self.depths - depth) <= tolerance)
        if len(hits) == 0:
            return None
        for uids in self.meant:
            hits = np.array([k for k in hits if self.slices[k].uid.partition(" ")[0] in uids] or hits)
        first = self.slices[hits[0]]
        for k in hits[1:]:
            if self.slices[k].uid != first.uid or not np.array_equal(self.slices[k].hu, first.hu):
                raise Contradiction("several slices lie there")
        return int(hits[0])

    def at(self, depth: float) -> int:
        """Return the slice with a plane at most 0.1 mm, or a fifth of the step, away."""
        found = self.find(depth, min(0.1, 0.2 * self.step))
        if found is None:
            raise Contradiction("no slice lies there")
        return found


def _crossings(points: Floats, rows: int, columns: int) -> npt.NDArray[np.bool_]:
    """Return which pixel centres have an odd number of edges to their right; corners are (row, column)."""
    inside = np.zeros((rows, columns), dtype=bool)
    top, left = np.floor(points.min(axis=0)).clip(0).astype(int)
    bottom, right = np.ceil(points.max(axis=0)).astype(int) + 1
    window = inside[top:bottom, left:right]
    y, x = np.mgrid[top : top + window.shape[0], left : left + window.shape[1]].astype(float)
    for (r0, c0), (r1, c1) in zip(points, np.roll(points, -1, axis=0), strict=True):
        if r0 == r1:
            continue
        low, high = min(r0, r1), max(r0, r1)
        window ^= (low <= y) & (y < high) & (c0 + (y - r0) / (r1 - r0) * (c1 - c0) > x)
    return inside


def _contours(dataset: Dataset, name: str) -> list[tuple[Floats, str]]:
    """Return corners and referenced instance of each contour of the only region with this name."""
    numbers = [roi.integer(0x30060022) for roi in dataset.items(0x30060020)]
    named = [roi.integer(0x30060022) for roi in dataset.items(0x30060020) if roi.text(0x30060026) == name]
    if len(named) != 1 or numbers.count(named[0]) != 1:
        raise Contradiction("no one region bears the name")
    items = [item for item in dataset.items(0x30060039) if item.integer(0x30060084) == named[0]]
    if len(items) > 1 and {item.integer(0x30060084) for item in dataset.items(0x30060039)} < set(numbers):
        raise Contradiction("another region's contours may be among its own")
    found = []
    for contour in itertools.chain(*(item.items(0x30060040) for item in items)):
        points = np.array(contour.decimals(0x30060050)).reshape(-1, 3)
        if contour.text(0x30060042) not in ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR"):
            raise Contradiction("a contour is open")
        if 0x30060046 in contour and contour.integer(0x30060046) != len(points):
            raise Contradiction("a contour has more or fewer points than it says")
        images = contour.items(0x30060016)
        found.append((points, _name(images[0]) if len(images) == 1 else ""))
    return found


def _name(reference: Dataset) -> str:
    """Return what a contour's reference names; one without a UID names nothing."""
    if not reference.text(0x00081155):
        return ""
    uid = reference.uid(0x00081155)
    return f"{uid} frame {reference.integer(0x00081160)}" if 0x00081160 in reference else uid


def _from_contours(dataset: Dataset, name: str, stack: _Stack) -> dict[int, npt.NDArray[np.bool_]]:
    planes: dict[int, npt.NDArray[np.bool_]] = {}
    for points, uid in _contours(dataset, name):
        depths = points @ stack.normal
        if np.ptp(depths) > 0.2:
            raise Contradiction("a contour is not flat")
        k = stack.at(float(depths.mean()))
        image = stack.slices[k]
        if uid and uid not in (image.uid, image.uid.partition(" ")[0]):
            raise Contradiction("a contour names another slice than it lies on")
        offset = points - image.position
        rows, columns = image.hu.shape
        corners = np.column_stack([offset @ image.orientation[1] / image.spacing[0],
                                   offset @ image.orientation[0] / image.spacing[1]])  # fmt: skip
        drawn = _crossings(corners, rows, columns)
        planes[k] = planes[k] ^ drawn if k in planes else drawn
    return planes


def _group(dataset: Dataset, frame: Dataset, tag: int) -> Dataset:
    shared = dataset.items(0x52009229)
    for group in (frame, *shared):
        if group.items(tag):
            return group.items(tag)[0]
    raise Contradiction("a functional group is missing")


def _from_segment(content: bytes, dataset: Dataset, name: str, stack: _Stack) -> dict[int, npt.NDArray[np.bool_]]:
    named = [s.integer(0x00620004) for s in dataset.items(0x00620002) if s.text(0x00620005) == name]
    if len(named) != 1:
        raise Contradiction("no one segment bears the name")
    rows, columns, count = (dataset.integer(tag) for tag in (0x00280010, 0x00280011, 0x00280008))
    groups = dataset.items(0x52009230)
    if len(groups) != count or dataset.integer(0x00280100) not in (1, 8) or dataset.integer(0x00280103) != 0:
        raise Contradiction("frames and their descriptions do not fit")
    value = dataset.raw(PIXEL_DATA)
    bits = np.frombuffer(value, dtype=np.uint8)
    if dataset.integer(0x00280100) == 1:
        bits = np.unpackbits(bits, bitorder="little")
    size = rows * columns * count
    allocated = dataset.integer(0x00280100)
    limit = min(rows, columns) * allocated // 8 if count == 1 or rows * columns * allocated % 32 == 0 else 0
    if not _is_all(value, -(-size * allocated // 8), limit):
        raise Contradiction("there are more or fewer pixels than frames")
    frames = bits[:size].reshape(count, rows, columns)
    planes: dict[int, npt.NDArray[np.bool_]] = {}
    for group, pixels in zip(groups, frames, strict=True):
        if dataset.text(0x00620001) == "LABELMAP":
            drawn = pixels == named[0]
        elif _group(dataset, group, 0x0062000A).integer(0x0062000B) == named[0]:
            if pixels.max(initial=0) > 1:
                raise Contradiction("a binary segment holds more than ones")
            drawn = pixels > 0
        else:
            continue
        if not drawn.any():
            continue
        position = np.array(_group(dataset, group, 0x00209113).decimals(0x00200032, 3))
        k = stack.at(float(position @ stack.normal))
        image = stack.slices[k]
        axes = _clean(_group(dataset, group, 0x00209116).decimals(0x00200037, 6))
        step = _group(dataset, group, 0x00289110).decimals(0x00280030, 2)
        # A frame may be cropped, turned or shifted by whole pixels: the positions of its voxels give its place.
        row, column = np.nonzero(drawn)
        off = position + np.outer(column * step[1], axes[0]) + np.outer(row * step[0], axes[1]) - image.position
        at = off @ image.orientation[::-1].T / image.spacing
        rows_at, columns_at = np.rint(at).astype(int).T
        far = off @ stack.normal
        if (
            np.abs((at - np.rint(at)) * image.spacing).max() > 0.01
            or np.abs(far).max() > min(0.1, 0.2 * stack.step)
            or abs(step[0] * step[1] / (image.spacing[0] * image.spacing[1]) - 1) > 1e-3
        ):
            raise Contradiction("a frame does not lie on a slice")
        height, width = image.hu.shape
        if min(rows_at.min(), columns_at.min()) < 0 or rows_at.max() >= height or columns_at.max() >= width:
            raise Contradiction("a frame lies beyond its slice")
        plane = np.zeros((height, width), dtype=np.bool_)
        plane[rows_at, columns_at] = True
        if k in planes and (planes[k] != plane).any():
            raise Contradiction("two frames lie on a slice, and differ")
        planes[k] = plane
    return planes


def sound(contents: Sequence[bytes]) -> list[bytes]:
    """Return the files without contradictions."""
    kept = []
    for content in contents:
        with suppress(Contradiction):
            _read(content)
            kept.append(content)
    return kept


def facts(contents: Sequence[bytes], name: str) -> Facts:
    """Read a study.

    Parameters
    ----------
    contents
        Every file of it.
    name
        The region that was measured.

    Raises
    ------
    Contradiction
        Where any of the files, or what they say together, cannot be relied on.
    """
    every = [_read(content) for content in contents]
    slices = [one for one in every if isinstance(one, Slice)]
    slices += itertools.chain(*(one for one in every if isinstance(one, list)))
    # A structure set without a region is ignored.
    objects = [one for one in every if isinstance(one, tuple) and (one[0] != _RTSTRUCT or one[1].items(0x30060020))]
    if not slices or not objects:
        raise Contradiction("there are no slices, or no region")
    named = {uid for sop_class, dataset, _ in objects for uid in _named(sop_class, dataset, name)}
    series = _drawn_on(slices, named, [dataset for _, dataset, _ in objects])
    of_series = [one for one in slices if one.series == series]
    named = {uid.partition(" ")[0] for uid in named}
    listed = {uid for sop_class, dataset, _ in objects for uid in _listed(dataset, of_series)}
    stack = _Stack(_of_one_acquisition(_vouched_for(of_series, named, objects), named, listed), named, listed)
    drawn = []
    for sop_class, dataset, content in objects:
        planes = (
            _from_contours(dataset, name, stack)
            if sop_class == _RTSTRUCT
            else _from_segment(content, dataset, name, stack)
        )
        drawn.append(planes)
    held = [{k: mask for k, mask in planes.items() if mask.any()} for planes in drawn]
    if not held[0] or any(
        planes.keys() != held[0].keys() or any((planes[k] != held[0][k]).any() for k in planes) for planes in held
    ):
        raise Contradiction("the region is empty, or drawn differently")
    # A contour that encloses no voxel centre still counts: its slice belongs to the region.
    facts = _reference(stack, drawn[0])
    here = {one.uid.partition(" ")[0] for one in stack.slices}
    for sop_class, dataset, _ in objects:
        own = {uid.partition(" ")[0] for uid in _named(sop_class, dataset, name)} or _listed(dataset, of_series)
        is_vouched_for = bool(own) and own <= here  # a region object may be in a separate study
        if not all(_may_be_one(_patient(dataset), patient) for patient in facts.patients) or (
            dataset.uid(0x0020000D) != _study(stack) and not is_vouched_for
        ):
            raise Contradiction("the region names another patient or study")
    return facts


def _patient(dataset: Dataset) -> tuple[str, str, str]:
    """Patient ID, name and birth date."""
    return dataset.text(0x00100020), dataset.text(0x00100010), dataset.text(0x00100030)


def _may_be_one(one: tuple[str, str, str], other: tuple[str, str, str]) -> bool:
    """Whether two are one patient: by ID, or, unless both have one, by name and birth date (conformance.md)."""
    return one[0] == other[0] if one[0] and other[0] else one[1:] == other[1:]


def _named(sop_class: str, dataset: Dataset, name: str) -> list[str]:
    """Return the instances that the region's own contours or frames name."""
    if sop_class == _RTSTRUCT:
        return [uid for _, uid in _contours(dataset, name) if uid]
    sources = [
        source
        for group in dataset.items(0x52009230)
        for derivation in group.items(0x00089124)
        for source in derivation.items(0x00082112)
    ]
    return [source.uid(0x00081155) for source in sources]


def _drawn_on(slices: Sequence[Slice], named: set[str], objects: Sequence[Dataset]) -> str:
    """Return the region's series: the one that it names or its file lists, or the one with most slices."""
    known = {uid.partition(" ")[0] for uid in named}
    ((first, count), *others) = Counter(one.series for one in slices).most_common()
    if not others:
        return first
    by_name = {one.series for one in slices if one.uid.partition(" ")[0] in known}
    listed = {item.text(0x0020000E) for dataset in objects for item in _lists(dataset)}
    for told in (by_name, listed & {one.series for one in slices}):
        if len(told) == 1:
            return told.pop()
    if by_name or listed or others[0][1] == count:
        raise Untold("nothing says on which series the region was drawn")
    return first


def _vouched_for(
    slices: Sequence[Slice], named: set[str], objects: Sequence[tuple[str, Dataset, bytes]]
) -> Sequence[Slice]:
    """Leave out slices that a region's file does not list, if some that it lists are missing (conformance.md)."""
    here = {one.uid.partition(" ")[0] for one in slices}
    for sop_class, dataset, _ in objects:
        listed = _listed(dataset, slices)
        if listed <= here or listed <= {uid.partition(" ")[0] for uid in _every_name(sop_class, dataset)}:
            continue
        if len(objects) > 1:
            raise Untold("one of several regions lists slices that are missing")
        return [one for one in slices if one.uid.partition(" ")[0] in listed | named] or slices
    return slices


def _of_one_acquisition(slices: Sequence[Slice], named: set[str], listed: set[str]) -> Sequence[Slice]:
    """Leave out slices of an acquisition other than the drawn one (conformance.md); absent terms do not count.

    Acquisition Number, the last of the terms, is compared only for a slice that is not listed while others are. Lists
    with only the named instances do not count.
    """
    if listed <= named:
        listed = set()
    uids = [one.uid.partition(" ")[0] for one in slices]
    known = [one.terms for one, uid in zip(slices, uids, strict=True) if uid in (named or listed)]

    def is_of_it(one: Slice, uid: str) -> bool:
        count = len(_TERMS) - (not listed or uid in listed)
        return any(all(not a or a == b for a, b in zip(one.terms[:count], t[:count], strict=True)) for t in known)

    return [one for one, uid in zip(slices, uids, strict=True) if not known or uid in named or is_of_it(one, uid)]


def _listed(dataset: Dataset, slices: Sequence[Slice]) -> set[str]:
    """Return the instances of the series that a region's file lists; invalid UIDs too, as other instances.

    An item without a UID names nothing.
    """
    here = {one.uid.partition(" ")[0] for one in slices}
    found: set[str] = set()
    for item in _lists(dataset):
        instances = {image.text(0x00081155) for image in (*item.items(0x30060016), *item.items(0x0008114A))}
        if item.text(0x0020000E) == slices[0].series or instances & here:
            found |= instances - {""}
    sources = {image.text(0x00081155) for image in dataset.items(0x00082112)}  # of a segmentation, without a series
    return found | (sources - {""} if sources & here else set())


def _every_name(sop_class: str, dataset: Dataset) -> Iterator[str]:
    """Return the instances that any contour or frame of a file names."""
    if sop_class != _RTSTRUCT:
        yield from _named(sop_class, dataset, "")
        return
    for item in dataset.items(0x30060039):
        for contour in item.items(0x30060040):
            for image in contour.items(0x30060016):
                yield image.text(0x00081155)


def _lists(dataset: Dataset) -> Iterator[Dataset]:
    for frame in dataset.items(0x30060010):
        for study in frame.items(0x30060012):
            yield from study.items(0x30060014)
    for holder in (dataset, *dataset.items(0x00081200)):
        yield from holder.items(0x00081115)


def _study(stack: _Stack) -> str:
    return stack.slices[0].identity[0]


def _reference(stack: _Stack, planes: Mapping[int, npt.NDArray[np.bool_]]) -> Facts:
    first, last = min(planes), max(planes)
    gaps = np.diff(np.unique(stack.depths.round(3)))
    step = float(np.median(gaps))
    count = round((stack.depths[last] - stack.depths[first]) / step)
    allowed = max(0.02, 0.02 * step)
    places = {p: stack.find(float(stack.depths[first] + p * step), allowed) for p in range(-1, count + 2)}
    is_rounded = np.allclose(stack.depths, stack.depths.round(1), rtol=0, atol=1e-4) and len({*gaps.round(2)}) > 1
    if any(places[p] is None for p in range(count + 1)):
        if is_rounded:
            raise Untold("positions that were rounded to a tenth hide how far the slices lie apart")
        raise Contradiction("a slice within the region is missing")
    used = [k for k in places.values() if k is not None]
    slices = [stack.slices[k] for k in used]
    head = slices[0]
    patients = frozenset(one.patient for one in slices)
    are_one = all(itertools.starmap(_may_be_one, itertools.combinations(patients, 2)))
    if len({one.identity for one in slices}) != 1 or not are_one:
        raise Contradiction("slices name different patients, studies or Frames of Reference")
    if any(
        one.hu.shape != head.hu.shape
        or not np.allclose(one.spacing, head.spacing, rtol=1e-5)
        or not np.allclose(one.orientation, head.orientation, atol=1e-4)
        for one in slices
    ):
        raise Contradiction("slices differ in their grid")
    depths = stack.depths[used]
    step = float((depths[-1] - depths[0]) / (len(used) - 1))
    if np.abs(np.diff(depths) - step).max() > allowed:
        if is_rounded:
            raise Untold("positions that were rounded to a tenth hide how far the slices lie apart")
        raise Contradiction("slices are not evenly spaced")
    declared = [value for one in slices for value in one.declared if abs(value - step) <= 1e-4 * step]
    hu = np.stack([one.hu for one in slices])
    if np.issubdtype(hu.dtype, np.integer):
        small = np.iinfo(np.int16)
        hu = hu.astype(np.int16 if small.min <= hu.min() and hu.max() <= small.max else np.int32)
    blank = np.zeros(head.hu.shape, dtype=bool)
    return Facts(
        hu=hu,
        mask=np.stack([planes.get(k, blank) for k in used]),
        spacing=(declared[0] if declared else step, *head.spacing),
        origin=tuple(head.position.tolist()),
        direction=tuple(np.column_stack([*head.orientation, stack.normal]).ravel().tolist()),
        positions=tuple(tuple(one.position.tolist()) for one in slices),
        clipped=len(used) < count + 3,
        patients=patients,
    )


def pixels_of(content: bytes) -> bytes:
    """Return the pixels of an uncompressed file as they are encoded."""
    return read(content)[1][PIXEL_DATA].value


def drawn_voxels(content: bytes) -> Floats:
    """Return the positions (voxels, 3) in mm of the voxels of a one-segment SEG, in bits or full-range bytes."""
    _, dataset = read(content)
    rows, columns, count = (dataset.integer(tag) for tag in (0x00280010, 0x00280011, 0x00280008))
    bits = np.frombuffer(dataset.raw(PIXEL_DATA), dtype=np.uint8)
    if dataset.integer(0x00280100) == 1:
        bits = np.unpackbits(bits, bitorder="little")
    elif not {*bits.tolist()} <= {0, dataset.integer(0x0062000E)}:  # Maximum Fractional Value
        raise Contradiction("a voxel is neither in nor out")
    places = []
    frames = bits[: rows * columns * count].reshape(count, rows, columns)
    for group, frame in zip(dataset.items(0x52009230), frames, strict=True):
        position = np.array(_group(dataset, group, 0x00209113).decimals(0x00200032, 3))
        orientation = np.array(_group(dataset, group, 0x00209116).decimals(0x00200037, 6)).reshape(2, 3)
        spacing = _group(dataset, group, 0x00289110).decimals(0x00280030, 2)
        r, c = np.nonzero(frame)
        places.append(position + np.outer(r * spacing[0], orientation[1]) + np.outer(c * spacing[1], orientation[0]))
    return np.concatenate(places)


def stock_features(
    facts: Facts, parameters: Path, *, direction: type[np.floating[Any]] = np.float64
) -> dict[str, float]:
    """Compute features by stock PyRadiomics, with the geometry in single precision as in a NIfTI file.

    `direction` is the precision of the directions, which such a file derives from a quaternion.
    """

    def image(array: npt.NDArray[Any]) -> sitk.Image:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing([float(np.float32(v)) for v in reversed(facts.spacing)])
        made.SetOrigin([float(np.float32(v)) for v in facts.origin])
        axes = np.reshape(facts.direction, (3, 3)).astype(direction).astype(np.float64)
        made.SetDirection((axes / np.linalg.norm(axes, axis=0)).ravel().tolist())
        return made

    extractor = radiomics.featureextractor.RadiomicsFeatureExtractor(str(parameters))
    found = extractor.execute(image(facts.hu), image(facts.mask.astype(np.uint8)))
    return {name: float(value) for name, value in found.items() if name.startswith("original_")}


def agree(answer: Mapping[str, float | None], stock: Mapping[str, float], facts: Facts, parameters: Path) -> list[str]:
    """Return the names of the features in which an answer differs from the stock path.

    On axes other than the patient's, the last bit of a direction decides how an interpolated HU between two values is
    rounded, so a few voxels may differ by one HU. This changes a feature by at most 1 %. A feature of zones of
    neighbouring voxels may change by twice the change of stock PyRadiomics itself from such a bit.
    """
    is_oblique = not np.isin(np.abs(facts.direction), (0, 1)).all()

    def differing(allowed: Mapping[str, float]) -> list[str]:
        return [n for n, v in answer.items() if v is not None and not abs(v - stock[n]) <= max(allowed[n], 1e-12)]

    found = differing({name: (1e-2 if is_oblique else 1e-9) * abs(value) for name, value in stock.items()})
    if not found or not is_oblique:
        return found
    moved = stock_features(facts, parameters, direction=np.float32)
    return differing({n: max(1e-2 * abs(value), 2 * abs(moved[n] - value)) for n, value in stock.items()})
