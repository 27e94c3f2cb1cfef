"""The index: which files of the inbox may belong together. What they hold stays on record, and not in memory.

An inbox keeps every study that was ever answered, so what is known of each file must be little, and what one file
changes must not have all others looked at. Files that share a UID, directly or by others, make up a group; no two
groups can have anything to do with each other. A Frame of Reference joins only what a region in it stands between:
some software gives the same one to every study. Headers are taken from the file table, a group at a time, when
something about that group has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.state.file_table import FileTable


@dataclass(slots=True, eq=False)
class _Group:
    paths: list[str] = field(default_factory=list)  # with those that have left, while it is not whole
    links: list[int] = field(default_factory=list)
    series: set[tuple[int, int]] = field(default_factory=set)  # Frame of Reference and series of its images
    keys: tuple[str, ...] = ()  # of its cases, when they were last given
    is_whole: bool = True


class StudyIndex:
    """The files of interest of one or several inboxes.

    Parameters
    ----------
    files
        Records of what was read.
    assemble
        The step that makes cases of headers: of a group, what it would make of it among all others.
    """

    def __init__(self, files: FileTable, assemble: Callable[[Iterable[Header]], tuple[Case, ...]]) -> None:
        self._files, self._assemble = files, assemble
        self._group_of: dict[str, _Group] = {}  # by path
        self._group_at: dict[int, _Group] = {}  # by link
        self._series_in: dict[int, set[int]] = {}  # links of series, by Frame of Reference
        self._group_with: dict[str, _Group] = {}  # by key of a case
        self._changed: dict[_Group, None] = {}  # in the order in which they came

    def __contains__(self, case_key: str) -> bool:
        """Whether there is a case of that key."""
        return case_key in self._group_with

    def paths(self) -> list[str]:
        """Return where the files lie, in order."""
        return sorted(self._group_of)

    def put(self, path: str, headers: Iterable[Header]) -> None:
        """Take in a file that has come to rest, whose headers are on record."""
        headers = tuple(headers)
        links = {hash(uid) for header in headers for uid in _uids(header) if uid}
        if not links:
            return
        series = {
            (_frame(header.frame_of_reference_uid), hash(header.series_instance_uid))
            for header in headers
            if isinstance(header, ImageHeader) and header.frame_of_reference_uid
        }
        links |= {frame for frame, _ in series if frame in self._group_at}
        for frame in [_frame(uid) for roi in headers if isinstance(roi, RoiHeader) for uid in roi.frames_of_reference]:
            links |= {frame, *self._series_in.get(frame, ())}
        known = {link for link in links if link in self._group_at}
        near = sorted({self._group_at[link] for link in known}, key=lambda group: len(group.paths))
        group = near.pop() if near else _Group()
        for other in near:
            self._absorb(other, group)
        for link in links - known:
            self._group_at[link] = group
            group.links.append(link)
        for frame, one in series - group.series:
            self._series_in.setdefault(frame, set()).add(one)
        group.series |= series
        group.paths.append(path)
        self._group_of[path] = group
        self._changed[group] = None

    def drop(self, path: str) -> None:
        """Let go of a file that has left or changed."""
        group = self._group_of.pop(path, None)
        if group is not None:
            group.is_whole = False
            self._changed[group] = None

    def changed(self) -> Iterator[tuple[Case, ...]]:
        """Give the cases of every group that has changed; a group counts as seen once the next one is asked for."""
        for group in [group for group in self._changed if not group.is_whole]:
            self._regroup(group)
        while self._changed:
            group = next(iter(self._changed))
            cases = self._cases(group)
            self._call(group, tuple(case.key for case in cases))
            yield cases
            del self._changed[group]

    def case(self, key: str) -> Case | None:
        """Return the case of that key; None where its files, or their records, are no more."""
        group = self._group_with.get(key)
        return None if group is None else next((case for case in self._cases(group) if case.key == key), None)

    def home(self, sop_instance_uid: str) -> str | None:
        """Return the key of the case that holds an instance."""
        group = self._group_at.get(hash(sop_instance_uid))
        for case in self._cases(group) if group else ():
            if any(header.sop_instance_uid == sop_instance_uid for header in case.headers):
                return case.key
        return None

    def came_after(self, case: Case, moment: datetime) -> bool:
        """Whether a file of a case was not there at that moment, or not as it is now."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return any(at is None or at > moment for at in read)

    def newest(self, case: Case) -> datetime | None:
        """Return when the last of a case's files came as it is now, whichever process has read it."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return max((at for at in read if at is not None), default=None)

    @property
    def reader(self) -> str:
        """Version of the code that reads the files."""
        return self._files.reader

    def _cases(self, group: _Group) -> tuple[Case, ...]:
        cases = self._assemble(header for path in sorted(self._left(group)) for header in self._files.headers(path))
        return tuple({case.key: case for case in cases}.values())  # a series may bear the UID of a region

    def _left(self, group: _Group) -> list[str]:
        """Paths of a group's files without those that have left."""
        return [path for path in dict.fromkeys(group.paths) if self._group_of.get(path) is group]

    def _call(self, group: _Group, keys: tuple[str, ...]) -> None:
        for key in group.keys:
            self._group_with.pop(key, None)
        group.keys = keys
        self._group_with.update(dict.fromkeys(keys, group))

    def _absorb(self, other: _Group, group: _Group) -> None:
        self._group_of.update(dict.fromkeys(self._left(other), group))
        self._group_at.update(dict.fromkeys(other.links, group))
        group.paths += other.paths
        group.links += other.links
        group.series |= other.series
        group.is_whole &= other.is_whole
        self._call(group, group.keys + other.keys)
        self._changed.pop(other, None)

    def _regroup(self, group: _Group) -> None:
        """Take a group apart that files have left: the others may have had nothing but these in common."""
        left = [(path, self._files.headers(path)) for path in self._left(group)]
        del self._changed[group]
        self._call(group, ())
        for link in group.links:
            del self._group_at[link]
        for frame, one in group.series:
            self._series_in[frame].discard(one)
            if not self._series_in[frame]:
                del self._series_in[frame]
        for path, headers in left:
            del self._group_of[path]
            self.put(path, headers)


def _frame(uid: str) -> int:
    return hash(("Frame of Reference", uid))


def _uids(header: Header) -> Iterator[str]:
    """All that :func:`dicom.cases.assemble` links a header by, but the Frame of Reference."""
    yield header.sop_instance_uid
    if isinstance(header, ImageHeader):
        yield header.series_instance_uid
        return
    yield from header.image_references
    for series, instances in header.listed:
        yield series
        yield from instances
