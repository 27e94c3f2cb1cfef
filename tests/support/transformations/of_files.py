"""Changes to files: how their bytes are written, and which other files an export contains."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

from tests.support import habits
from tests.support.transformations.registry import Phase, Right, Transformation, add, changes, writes
from tests.support.transformations.study import Files, Study, Unfit

_EITHER = Right.EITHER
_PIXELS = 0x7FE00010
_EXPLICIT, _JPEG_2000 = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.90"
_DEFLATED = b"1.2.840.10008.1.2.1.99"


def _apart(content: bytes) -> habits.Parts:
    """Split a file in explicit little endian that no other transformation has changed."""
    if _EXPLICIT not in content[132:600] or content[128:132] != b"DICM":
        raise Unfit
    return habits.parts(content)


def _habit(habit: habits.Habit) -> Callable[[Files], Files]:
    def write(files: Files) -> Files:
        return {name: _with(habit, content) if _is_ours(name) else content for name, content in files.items()}

    return write


def _with(habit: habits.Habit, content: bytes) -> bytes:
    return habit(_apart(content)).joined()


def _is_ours(name: str) -> bool:
    return name.endswith(".dcm") and not name.startswith(".")


for _one in habits.HABITS:
    add(Transformation(f"{_one.__name__}_in_all_files", "files", Right.MEASURED, Phase.FILES, write=_habit(_one)))


def _in_fragments(file: habits.Parts, size: int) -> habits.Parts:
    tag, content = file.elements[-1]
    if tag != _PIXELS or content[8:12] == b"\xff\xff\xff\xff":
        raise Unfit
    pixels = content[12:]
    items = [b""] + [pixels[at : at + size] for at in range(0, len(pixels), size)]
    written = content[:8] + b"\xff\xff\xff\xff"
    written += b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(item)) + item for item in items)
    return replace(file, elements=(*file.elements[:-1], (tag, written + b"\xfe\xff\xdd\xe0" + bytes(4))))


def _of(prefix: str, do: Callable[[bytes], bytes], files: Files) -> Files:
    return {name: do(content) if name.startswith(prefix) else content for name, content in files.items()}


@writes("CT", _EITHER)
def slices_in_fragments_though_native(files: Files) -> Files:
    return _of("ct-", lambda content: _in_fragments(_apart(content), 1 << 20).joined(), files)


@writes("segment", _EITHER)
def frames_in_fragments_though_native(files: Files) -> Files:
    return _of("seg", lambda content: _in_fragments(_apart(content), 500).joined(), files)


def _renamed(content: bytes) -> bytes:
    """Write JPEG 2000 into the meta information, and change nothing else."""
    file = _apart(content)
    old = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_EXPLICIT)) + _EXPLICIT
    new = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_JPEG_2000)) + _JPEG_2000
    if old not in file.meta:
        raise Unfit
    meta = file.meta.replace(old, new)
    return replace(file, meta=meta[:8] + struct.pack("<I", len(meta) - 12) + meta[12:]).joined()


@writes("CT", _EITHER)
def native_slices_though_compressed(files: Files) -> Files:
    return _of("ct-", _renamed, files)


@writes("segment", _EITHER)
def native_frames_though_compressed(files: Files) -> Files:
    return _of("seg", _renamed, files)


_NEEDED = (0x00200032, 0x00200037, 0x00280030, 0x00281052, 0x00281053)


def _as_unknown(content: bytes) -> bytes:
    file = _apart(content)
    changed = []
    for tag, element in file.elements:
        if tag in _NEEDED and element[4:6] == b"DS":
            value = element[8:]
            element = element[:4] + b"UN" + struct.pack("<HI", 0, len(value)) + value
        changed.append((tag, element))
    return replace(file, elements=tuple(changed)).joined()


@writes("CT")
def needed_elements_as_unknown(files: Files) -> Files:
    return _of("ct-", _as_unknown, files)


def _undecodable(study: Study) -> None:
    for dataset in study.every():
        dataset.PatientName = "QQXXZZVV"
        if "SpecificCharacterSet" in dataset:
            del dataset.SpecificCharacterSet
    study.truth = replace(study.truth, name=None)


def _badly_named(name: str, written: bytes, character_set: str | None = None) -> None:
    """Add a transformation: the name's bytes do not fit the character set of its files."""

    def change(study: Study) -> None:
        _undecodable(study)
        for dataset in study.every() if character_set else ():
            dataset.SpecificCharacterSet = character_set

    def write(files: Files) -> Files:
        return {key: content.replace(b"QQXXZZVV", written) for key, content in files.items()}

    assert len(written) == len("QQXXZZVV")
    add(Transformation(name, "CT", Right.MEASURED, Phase.OBJECTS, change=change, write=write))


_badly_named("gbk_name_without_a_character_set", "李四测试".encode("gbk"))
_badly_named("latin_name_as_utf8", "Müller^A".encode("latin-1"), "ISO_IR 192")
_badly_named("utf8_name_as_latin", "Müller^".encode(), "ISO_IR 100")
_badly_named("name_in_a_set_that_is_none", "Müller^A".encode("latin-1"), "ISO_IR 999")


@writes("files", phase=Phase.EXPORT)
def deflated(files: Files) -> Files:
    """Everything after the meta information is deflated."""
    done = {}
    for name, content in files.items():
        if not _is_ours(name):
            done[name] = content
            continue
        file = _apart(content)
        old = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_EXPLICIT)) + _EXPLICIT
        new = struct.pack("<HH2sH", 2, 0x10, b"UI", len(_DEFLATED)) + _DEFLATED
        meta = file.meta.replace(old, new)
        if meta == file.meta:
            raise Unfit
        meta = meta[:8] + struct.pack("<I", len(meta) - 12) + meta[12:]
        deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        packed = deflater.compress(content[len(file.front) + len(file.meta) :]) + deflater.flush()
        done[name] = file.front + meta + packed + b"\0" * (len(packed) % 2)
    return done


@changes("files", phase=Phase.EXPORT)
def junk_beside(study: Study) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ct-003.dcm", b"no matter what")
    study.loose |= {
        "DICOMDIR": bytes(128) + b"DICM" + b"nothing that holds together",
        "export.zip": packed.getvalue(),
        "._ct-003.dcm": b"\0\5\x16\7\0\2\0\0" + bytes(90),
        "Thumbs.db": b"\xd0\xcf\x11\xe0" + bytes(500),
        "empty": b"",
        "README.TXT": b"Viewer for Windows",
    }


@writes("files", phase=Phase.EXPORT)
def half_copied_slices_beside(files: Files) -> Files:
    halves = {f"half-{name}": files[name][: len(files[name]) // 2] for name in ("ct-004.dcm", "ct-005.dcm")}
    return files | halves


@writes("files", phase=Phase.EXPORT)
def names_that_are_no_utf8(files: Files) -> Files:
    return {os.fsdecode(b"\xe9tude/\xc4_") + name: content for name, content in files.items()}


@writes("files", phase=Phase.EXPORT)
def everything_twice(files: Files) -> Files:
    return files | {f"again/{name}": content for name, content in files.items()}
