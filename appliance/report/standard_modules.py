"""highdicom's table of DICOM modules, with each module read when it is needed.

highdicom looks up the attributes of an object in a table of all modules of the standard. It reads the complete table,
23 MB of JSON. This takes 100 MB of memory at its peak, 60 MB for the rest of the process, and a quarter of a second. A
report and its segmentation need about thirty of the 436 modules.
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
    """The attributes of each module by its key, as in highdicom's table."""

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
    """Find the position of each value of the outermost object: only its keys are indented by two spaces."""
    at = content.find(b'\n  "')
    while at != -1:
        key_end = content.index(b'"', at + 4)
        following = content.find(b'\n  "', key_end)
        value_end = content.rindex(b"]", key_end, None if following == -1 else following) + 1
        yield content[at + 4 : key_end].decode(), (content.index(b"[", key_end), value_end)
        at = following


@cache
def read_modules_singly() -> None:
    """Make highdicom use :class:`StandardModules` from now on; the attributes are the same."""
    modules = StandardModules()
    if modules:  # empty if the file has another layout: then highdicom's own table is used
        for user in _LOOKED_UP_IN:
            setattr(user, _BY, lambda: modules)
