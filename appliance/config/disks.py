"""What the system says of the disk that a folder lies on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Changes made by another machine ring no event here.
_NETWORKED = re.compile(r"nfs4?|cifs|smb3?|smbfs|9p|virtiofs|vboxsf|prl_fs|afs|ceph|lustre|glusterfs|fuse(\..*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """Which folder it is that lies at a path.

    Attributes
    ----------
    device, inode
        As stat(2) has them.
    kind, source
        Type and source of its file system, as in ``/proc/self/mountinfo`` (proc(5)); empty where they are not known.
    inside
        Its path within that file system: ``/`` where that is mounted at the folder itself.
    """

    device: int
    inode: int
    kind: str
    source: str
    inside: str

    def is_same(self, other: Place) -> bool:
        """Whether both are one folder; on the network, where a new mount changes the numbers, one share."""
        if is_networked(self.kind):
            return (self.kind, self.source) == (other.kind, other.source)
        return (self.device, self.inode) == (other.device, other.inode)

    def is_unmounted_at(self, now: Place) -> bool:
        """Whether this was a share, or a disk of its own, and what lies there now is a part of another disk."""
        was_mounted = self.inside == "/" or is_networked(self.kind)
        is_mounted = now.inside == "/" or is_networked(now.kind)
        return was_mounted and not is_mounted and not self.is_same(now)


def place_of(folder: Path, known: Place | None = None) -> Place:
    """Return which folder lies at a path; it is opened, so that one that is mounted on demand is mounted.

    Parameters
    ----------
    folder
        The path.
    known
        What is returned, without looking through all mounts, where device and inode are its.

    Raises
    ------
    OSError
        When it cannot be opened.
    """
    with _opened(folder) as descriptor:
        status = os.fstat(descriptor)
        if known is not None and (status.st_dev, status.st_ino) == (known.device, known.inode):
            return known
        with contextlib.suppress(OSError, StopIteration):
            about = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
            mount = next(int(line.split()[1]) for line in about.splitlines() if line.startswith("mnt_id:"))
            _, root, point, kind, source = next(found for found in _mounts() if found[0] == mount)
            below = os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), point)
            return Place(status.st_dev, status.st_ino, kind, source, os.path.normpath(os.path.join(root, below)))
    return Place(status.st_dev, status.st_ino, "", "", "")


def is_networked(kind: str) -> bool:
    """Whether a file system of that type lies on the network, or in another program's hands (FUSE)."""
    return _NETWORKED.fullmatch(kind) is not None


def file_system(path: Path) -> str:
    """Name of the type of the file system that holds a path, e.g. ``ext4`` or ``nfs4``; empty where it is not known."""
    place, best, found = os.path.realpath(path), -1, ""
    with contextlib.suppress(OSError):
        for _, _, point, kind, _ in _mounts():
            inside = place == point or place.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:  # of two at the same point, the later covers the earlier
                best, found = len(point), kind
    return found


def _mounts() -> Iterator[tuple[int, str, str, str, str]]:
    """Give number, root within the file system, mount point, type and source of every mount."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        first, _, rest = line.partition(" - ")
        number, _, _, root, point, *_ = first.split()
        kind, source, *_ = rest.split()
        yield int(number), _unescaped(root), _unescaped(point), kind, source


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def free_mb(folder: Path) -> int | None:
    """Return the space that this user may still fill on a folder's disk, in MB; None where that cannot be told."""
    try:
        status = os.statvfs(folder)
    except OSError:  # it is away, which whoever writes to it will say
        return None
    return status.f_bavail * status.f_frsize // 1024**2


@contextlib.contextmanager
def held(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Hold a folder as long as the block lasts: together with others who read by it, or alone.

    Nothing is written for it, so that who may only read can hold it, too.

    Parameters
    ----------
    folder
        The folder.
    shared
        Whether others may hold it as well.

    Yields
    ------
    bool
        Whether it is held; False where others hold it otherwise, or the file system knows no locks.

    Raises
    ------
    OSError
        When it cannot be opened.
    """
    with _opened(folder) as descriptor:
        is_held = True
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            is_held = False
        yield is_held


def flush(path: Path) -> None:
    """Flush a file or a folder to the disk; network file systems know no flush of folders.

    Raises
    ------
    OSError
        When that cannot be done.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def prove_writable(folder: Path) -> None:
    """Write a file in a folder and flush it to the disk; it is gone again even where this process is killed.

    Raises
    ------
    OSError
        When that cannot be done.
    """
    with tempfile.TemporaryFile(prefix=".lungstage-", dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def give_to_owner(descriptor: int, owned: Path) -> None:
    """Let what root makes, by a command, belong to whom something else belongs to: the daemon must go on using it.

    Parameters
    ----------
    descriptor
        Of what was made.
    owned
        Of whose owner it becomes.
    """
    if os.geteuid() == 0:
        owner = owned.stat()
        with contextlib.suppress(PermissionError):  # a root without capabilities, who is the daemon itself
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_private(path: Path, content: bytes, *, keep: bool = False) -> None:
    """Write a file that nobody else may read, whole or not at all; owned as the one before, or the folder, is.

    Parameters
    ----------
    path
        The file.
    content
        What it is to hold.
    keep
        Whether one that is there already, made by somebody else meanwhile, stays.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            give_to_owner(descriptor, path if path.exists() else path.parent)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        else:
            draft.rename(path)
        flush(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def make_private(folder: Path) -> None:
    """Make a folder that nobody else may look into, where it is not there; it belongs to whom the one above does.

    Raises
    ------
    OSError
        When it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        return
    with _opened(folder) as descriptor:
        give_to_owner(descriptor, folder.parent)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
