"""DICOM's modules as highdicom knows them, each read when it is asked for.

What belongs into an object, highdicom looks up in a table of every module of the standard. It reads that whole, 23 MB
of JSON, which costs a process 100 MB at its peak, 60 for the rest of its life and a quarter of a second. A report and
its segmentation ask for some thirty modules of 436.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import IO, Any

from highdicom import _standard_utils, base, image

_LOOKED_UP_IN, _BY = (_standard_utils, base, image), "get_module_attribute_map"


class StandardModules(Mapping[str, list[dict[str, Any]]]):
    """The attributes of each module, by the module's key: what highdicom's own table holds."""

    def __init__(self) -> None:
        with self._open() as file:
            self._places = dict(_places(file.read()))
        self._known: dict[str, list[dict[str, Any]]] = {}

    @staticmethod
    def _open() -> IO[bytes]:
        return (files("highdicom") / "_standard" / "module_attribute_map.json").open("rb")

    def __getitem__(self, key: str) -> list[dict[str, Any]]:
        if key not in self._known:
            start, end = self._places[key]
            with self._open() as file:
                file.seek(start)
                self._known[key] = json.loads(file.read(end - start))
        return self._known[key]

    def __contains__(self, key: object) -> bool:
        return key in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def _places(content: bytes) -> Iterator[tuple[str, tuple[int, int]]]:
    """Find where the value of each key of the outermost object lies: these alone are indented by just two spaces."""
    at = content.find(b'\n  "')
    while at != -1:
        key_end = content.index(b'"', at + 4)
        following = content.find(b'\n  "', key_end)
        value_end = content.rindex(b"]", key_end, None if following == -1 else following) + 1
        yield content[at + 4 : key_end].decode(), (content.index(b"[", key_end), value_end)
        at = following


@cache
def read_modules_singly() -> None:
    """Have highdicom look modules up in :class:`StandardModules` from now on; it finds what it would have found."""
    modules = StandardModules()
    if modules:  # another layout of the file, and highdicom's own way is the right one
        for user in _LOOKED_UP_IN:
            setattr(user, _BY, lambda: modules)
