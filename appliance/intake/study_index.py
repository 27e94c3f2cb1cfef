"""Index of the files of the inboxes: which files may belong together, and the cases that they form.

An inbox keeps all studies, also those already answered. So the index stores little per file in memory, and a new or
removed file affects only files that may belong to it. Files that share a UID, directly or through other files, form a
group; files of different groups are independent. A Frame of Reference connects files only through a region in it,
because some software gives the same one to every study. The headers stay in the file table. They are read from there,
one group at a time, when the group has changed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from lungstage.appliance.contract.errors import Reason
from lungstage.appliance.dicom.cases import Case
from lungstage.appliance.dicom.header import Header, ImageHeader, RoiHeader
from lungstage.appliance.dicom.names import counted
from lungstage.appliance.state.file_table import FileTable

# If software gives every study the same Frame of Reference, all studies are one group, and its cases are examined one
# by one. So the cases of the last group are kept, unless they are few or their headers would take more than 50 MB.
_FEWEST_KEPT = 3  # cases
_MOST_KEPT = 20_000  # files, and instances that regions refer to

_IN_ITS_FOLDERS = " In the folders of this case, "
_FORMERLY = " Beside its files "  # the same in messages of lungstage 0.2 and earlier, which ledgers still hold


@dataclass(slots=True, eq=False)
class _Group:
    paths: list[str] = field(default_factory=list)  # may include removed files as long as is_whole is False
    links: list[int] = field(default_factory=list)
    series: set[tuple[int, int]] = field(default_factory=set)  # Frame of Reference and series of its images
    keys: tuple[str, ...] = ()  # keys of its cases at the last assembly
    is_whole: bool = True


class StudyIndex:
    """The images and regions in one or several inboxes, in groups.

    Parameters
    ----------
    files
        Table with the headers of every file that was read.
    assemble
        Function that forms cases from headers: :func:`dicom.cases.assemble`. From the headers of one group, it must
        form the same cases as from the headers of all groups together.
    """

    def __init__(self, files: FileTable, assemble: Callable[[Iterable[Header]], tuple[Case, ...]]) -> None:
        self._files, self._assemble = files, assemble
        self._group_of: dict[str, _Group] = {}  # by path
        self._group_at: dict[int, _Group] = {}  # by link
        self._series_in: dict[int, set[int]] = {}  # links of series, by Frame of Reference
        self._group_with: dict[str, _Group] = {}  # by key of a case
        self._changed: dict[_Group, None] = {}  # in the order of the changes
        self._unreadable: dict[str, set[str]] = {}  # paths, by folder
        self._latest: tuple[_Group, tuple[Case, ...]] | None = None  # its cases are asked for one by one

    def __contains__(self, case_key: str) -> bool:
        """Whether there is a case with that key."""
        return case_key in self._group_with

    def paths(self) -> list[str]:
        """Return the paths of all files, sorted."""
        return sorted(self._group_of)

    def put(self, path: str, headers: Iterable[Header]) -> None:
        """Add a file whose headers are in the file table."""
        self._latest = None
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
        """Register a DICOM file that cannot be read."""
        self._unreadable.setdefault(os.path.dirname(path), set()).add(path)

    def with_unreadable(self, reason: Reason, case: Case) -> Reason:
        """Add to the reason of a waiting case how many files in its folders cannot be read: these may be missing ones.

        A number that the reason already contains is replaced.
        """
        message = reason.message.partition(_IN_ITS_FOLDERS)[0].partition(_FORMERLY)[0]
        folders = {os.path.dirname(header.path) for header in case.headers}
        count = sum(len(self._unreadable.get(folder, ())) for folder in folders)
        if count:
            message += (
                f"{_IN_ITS_FOLDERS}{counted(count, 'DICOM file')} cannot be read. "
                "The command lungstage jobs --files --paths lists them with the reasons."
            )
        return Reason(reason.code, message)

    def drop(self, path: str) -> None:
        """Remove a file that was deleted or has changed."""
        self._latest = None
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
        """Yield the cases of each changed group; if the caller stops early, the last group is yielded again."""
        for group in [group for group in self._changed if not group.is_whole]:
            self._regroup(group)
        while self._changed:
            group = next(iter(self._changed))
            cases = self._cases(group)
            self._set_keys(group, tuple(case.key for case in cases))
            yield cases
            del self._changed[group]

    def case(self, key: str) -> Case | None:
        """Return the case with that key; None if its files or their records are gone."""
        group = self._group_with.get(key)
        return None if group is None else next((case for case in self._cases(group) if case.key == key), None)

    def folders(self, key: str) -> frozenset[str]:
        """Return the folders of the files of a case, and of files that may belong to it."""
        group = self._group_with.get(key)
        return frozenset() if group is None else frozenset(os.path.dirname(path) for path in group.paths)

    def homes(self, sop_instance_uid: str) -> tuple[str, ...]:
        """Return the keys of the cases that contain an instance: several if a region's file lists several series."""
        group = self._group_at.get(hash(sop_instance_uid))
        return tuple(
            case.key
            for case in (self._cases(group) if group else ())
            if any(header.sop_instance_uid == sop_instance_uid for header in case.headers)
        )

    def came_after(self, case: Case, moment: datetime) -> bool:
        """Whether a file of a case was read after that time: it is new, or has changed since."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return any(at is None or at > moment for at in read)

    def newest(self, case: Case) -> datetime | None:
        """Return when the last of a case's files was read in its current form, by any process."""
        read = (self._files.read_at(str(path)) for path in {header.path for header in case.headers})
        return max((at for at in read if at is not None), default=None)

    @property
    def reader(self) -> str:
        """Version of the code that read the files."""
        return self._files.reader

    def _cases(self, group: _Group) -> tuple[Case, ...]:
        if self._latest is None or self._latest[0] is not group:
            paths = sorted(self._left(group))
            assembled = self._assemble(header for path in paths for header in self._files.headers(path))
            cases = tuple({case.key: case for case in assembled}.values())  # a series and a region may share a UID
            named = sum(len(roi.image_references) for case in cases for roi in case.rois)
            if len(cases) < _FEWEST_KEPT or len(paths) + named > _MOST_KEPT:
                return cases
            self._latest = group, cases
        return self._latest[1]

    def _left(self, group: _Group) -> list[str]:
        """Return the paths of a group's files without removed ones."""
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
        """Form new groups from a group after files were removed: the removed files may have connected the others."""
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
    """All UIDs that :func:`dicom.cases.assemble` uses to link a header, except its Frame of Reference."""
    yield header.sop_instance_uid
    if isinstance(header, ImageHeader):
        yield header.series_instance_uid
        return
    yield from header.image_references
    for series, instances in header.listed:
        yield series
        yield from instances
