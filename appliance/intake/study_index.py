"""Which files of the inboxes may belong together, and the cases that they make up.

An inbox keeps every study that was ever answered. So little is kept in memory of each file, and a file that comes or
goes has only those looked at that it may belong to. Files that share a UID, directly or through other files, form a
group; files of different groups have nothing to do with each other. A Frame of Reference joins files only through a
region in it, because some software gives the same one to every study. Headers stay in the file table, and are read
from there, a group at a time, when something about the group has changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.state.file_table import FileTable

_BESIDE = " Beside its files "


@dataclass(slots=True, eq=False)
class _Group:
    paths: list[str] = field(default_factory=list)  # also of files that have left, while it is not whole
    links: list[int] = field(default_factory=list)
    series: set[tuple[int, int]] = field(default_factory=set)  # Frame of Reference and series of its images
    keys: tuple[str, ...] = ()  # of its cases, as they were last put together
    is_whole: bool = True


class StudyIndex:
    """The images and regions in one or several inboxes, grouped.

    Parameters
    ----------
    files
        Table that holds the headers of every file that was read.
    assemble
        The step that puts headers together into cases. Of a group's headers it must make the cases that it would make
        of them among those of all groups: :func:`dicom.cases.assemble`.
    """

    def __init__(self, files: FileTable, assemble: Callable[[Iterable[Header]], tuple[Case, ...]]) -> None:
        self._files, self._assemble = files, assemble
        self._group_of: dict[str, _Group] = {}  # by path
        self._group_at: dict[int, _Group] = {}  # by link
        self._series_in: dict[int, set[int]] = {}  # links of series, by Frame of Reference
        self._group_with: dict[str, _Group] = {}  # by key of a case
        self._changed: dict[_Group, None] = {}  # in the order in which they came
        self._unreadable: dict[str, set[str]] = {}  # paths, by folder

    def __contains__(self, case_key: str) -> bool:
        """Whether there is a case of that key."""
        return case_key in self._group_with

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted."""
        return sorted(self._group_of)

    def put(self, path: str, headers: Iterable[Header]) -> None:
        """Add a file whose headers are in the file table."""
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

    def put_unreadable(self, path: str) -> None:
        """Take note of a DICOM file that cannot be read."""
        self._unreadable.setdefault(os.path.dirname(path), set()).add(path)

    def with_unreadable(self, reason: Reason, case: Case) -> Reason:
        """Add to why a case waits that files which cannot be read lie in its folders: what is missing may be these.

        What the reason says of that already is brought up to date.
        """
        message = reason.message.partition(_BESIDE)[0]
        folders = {os.path.dirname(header.path) for header in case.headers}
        count = sum(len(self._unreadable.get(folder, ())) for folder in folders)
        if count:
            message += (
                f"{_BESIDE}{'1 DICOM file lies' if count == 1 else f'{count} DICOM files lie'} that cannot be read; "
                "lungstage jobs --files --paths says which and why."
            )
        return Reason(reason.code, message)

    def drop(self, path: str) -> None:
        """Remove a file that has left or changed."""
        folder = os.path.dirname(path)
        if path in self._unreadable.get(folder, ()):
            self._unreadable[folder].discard(path)
            if not self._unreadable[folder]:
                del self._unreadable[folder]
        group = self._group_of.pop(path, None)
        if group is not None:
            group.is_whole = False
            self._changed[group] = None

    def changed(self) -> Iterator[tuple[Case, ...]]:
        """Yield the cases of each group that has changed; who stops in between gets the last one again."""
        for group in [group for group in self._changed if not group.is_whole]:
            self._regroup(group)
        while self._changed:
            group = next(iter(self._changed))
            cases = self._cases(group)
            self._set_keys(group, tuple(case.key for case in cases))
            yield cases
            del self._changed[group]

    def case(self, key: str) -> Case | None:
        """Return the case of that key; None where its files or their records are gone."""
        group = self._group_with.get(key)
        return None if group is None else next((case for case in self._cases(group) if case.key == key), None)

    def folders(self, key: str) -> frozenset[str]:
        """Return the folders that hold the files of a case, and of what may belong to it."""
        group = self._group_with.get(key)
        return frozenset() if group is None else frozenset(os.path.dirname(path) for path in group.paths)

    def homes(self, sop_instance_uid: str) -> tuple[str, ...]:
        """Return the keys of the cases that hold an instance: several where a region's file lists several series."""
        group = self._group_at.get(hash(sop_instance_uid))
        return tuple(
            case.key
            for case in (self._cases(group) if group else ())
            if any(header.sop_instance_uid == sop_instance_uid for header in case.headers)
        )

    def came_after(self, case: Case, moment: datetime) -> bool:
        """Whether a file of a case was read after that moment: it is new, or has changed since."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return any(at is None or at > moment for at in read)

    def newest(self, case: Case) -> datetime | None:
        """Return when the last of a case's files came as it is now, whichever process has read it."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return max((at for at in read if at is not None), default=None)

    @property
    def reader(self) -> str:
        """Version of the code that read the files."""
        return self._files.reader

    def _cases(self, group: _Group) -> tuple[Case, ...]:
        cases = self._assemble(header for path in sorted(self._left(group)) for header in self._files.headers(path))
        return tuple({case.key: case for case in cases}.values())  # a series may bear the UID of a region

    def _left(self, group: _Group) -> list[str]:
        """Return the paths of a group's files without those that have left."""
        return [path for path in dict.fromkeys(group.paths) if self._group_of.get(path) is group]

    def _set_keys(self, group: _Group, keys: tuple[str, ...]) -> None:
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
        self._set_keys(group, group.keys + other.keys)
        self._changed.pop(other, None)

    def _regroup(self, group: _Group) -> None:
        """Group the files anew of a group that some have left: only those may have held it together."""
        left = [(path, self._files.headers(path)) for path in self._left(group)]
        del self._changed[group]
        self._set_keys(group, ())
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
    """All UIDs by which :func:`dicom.cases.assemble` links a header, but its Frame of Reference."""
    yield header.sop_instance_uid
    if isinstance(header, ImageHeader):
        yield header.series_instance_uid
        return
    yield from header.image_references
    for series, instances in header.listed:
        yield series
        yield from instances
