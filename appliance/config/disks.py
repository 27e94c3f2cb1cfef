"""Facts about the disk that a folder is on, and safe ways to write to it."""

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

# Changes that another machine makes on these file systems cause no file event here.
_NETWORKED = re.compile(r"nfs4?|cifs|smb3?|smbfs|9p|virtiofs|vboxsf|prl_fs|afs|ceph|lustre|glusterfs|fuse(\..*)?")


@dataclass(frozen=True, slots=True)
class Place:
    """The identity of the folder at a path.

    Attributes
    ----------
    device, inode
        From stat(2).
    kind, source
        Type and source of its file system, as in ``/proc/self/mountinfo`` (proc(5)); empty when not known.
    inside
        Its path within that file system; ``/`` when the file system is mounted at the folder itself.
    """

    device: int
    inode: int
    kind: str
    source: str
    inside: str

    def is_same(self, other: Place) -> bool:
        """Whether both are the same folder. On a network: the same share, because a new mount changes the numbers."""
        if is_networked(self.kind):
            return (self.kind, self.source) == (other.kind, other.source)
        return (self.device, self.inode) == (other.device, other.inode)

    def is_unmounted_at(self, now: Place) -> bool:
        """Whether a share or a separate disk was mounted here before, and is not mounted now."""
        was_mounted = self.inside == "/" or is_networked(self.kind)
        is_mounted = now.inside == "/" or is_networked(now.kind)
        return was_mounted and not is_mounted and not self.is_same(now)


def place_of(folder: Path, known: Place | None = None) -> Place:
    """Return the identity of the folder at a path. A folder that is mounted on demand is mounted by this.

    Parameters
    ----------
    folder
        The path.
    known
        Returned as it is when device and inode are the same; the list of mounts is not read then.

    Raises
    ------
    OSError
        When the folder cannot be opened.
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
    """Whether a file system of this type is on the network, or is served by another program (FUSE)."""
    return _NETWORKED.fullmatch(kind) is not None


def file_system(path: Path) -> str:
    """Return the type of the file system that a path is on, e.g. ``ext4`` or ``nfs4``; empty when not known."""
    place, best, found = os.path.realpath(path), -1, ""
    with contextlib.suppress(OSError):
        for _, _, point, kind, _ in _mounts():
            inside = place == point or place.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= best:  # the later of two mounts at one point hides the earlier
                best, found = len(point), kind
    return found


def _mounts() -> Iterator[tuple[int, str, str, str, str]]:
    """Yield number, root within the file system, mount point, type and source of every mount."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    for line in text.splitlines():
        first, _, rest = line.partition(" - ")
        number, _, _, root, point, *_ = first.split()
        kind, source, *_ = rest.split()
        yield int(number), _unescaped(root), _unescaped(point), kind, source


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), path)


def free_mb(folder: Path) -> int | None:
    """Return the free space of a folder's disk for this user, in MB; None when it is not known."""
    try:
        status = os.statvfs(folder)
    except OSError:  # the disk is not there; the code that writes to it reports that
        return None
    return status.f_bavail * status.f_frsize // 1024**2


@contextlib.contextmanager
def held(folder: Path, *, shared: bool) -> Iterator[bool]:
    """Lock a folder while the block runs: shared with other readers, or exclusively.

    Nothing is written to the folder. A user who may only read it can lock it too.

    Parameters
    ----------
    folder
        The folder.
    shared
        Whether others may lock it at the same time.

    Yields
    ------
    bool
        Whether it is locked; False when another lock excludes this one, or the file system has no locks.

    Raises
    ------
    OSError
        When the folder cannot be opened.
    """
    with _opened(folder) as descriptor:
        is_held = True
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            is_held = False
        yield is_held


def flush(path: Path) -> None:
    """Flush a file or a folder to the disk. Network file systems cannot flush folders; that is no error here.

    Raises
    ------
    OSError
        When it cannot be flushed.
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
    """Write a file in a folder and flush it to the disk. The file is removed again, even if this process is killed.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    with tempfile.TemporaryFile(prefix=".lungstage-", dir=folder) as file:
        file.write(bytes(4096))
        file.flush()
        os.fsync(file.fileno())


def give_to_owner(descriptor: int, owned: Path) -> None:
    """Give a file that root makes to the owner of another file, because the daemon must be able to use it.

    Parameters
    ----------
    descriptor
        Of the new file or folder.
    owned
        The file or folder whose owner it gets.
    """
    if os.geteuid() == 0:
        owner = owned.stat()
        with contextlib.suppress(
            PermissionError
        ):  # root without capabilities, as in a container; then root is the daemon's user
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def write_private(path: Path, content: bytes, *, keep: bool = False) -> None:
    """Write a file that only its owner can read, completely or not at all.

    The owner is that of the file before or, for a new file, that of the folder.

    Parameters
    ----------
    path
        The file.
    content
        The content.
    keep
        Whether to keep a file that another process has written in the meantime.

    Raises
    ------
    OSError
        When the file cannot be written.
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
    """Make a folder that only its owner can open, if it does not exist. Its owner is that of the folder above.

    Raises
    ------
    OSError
        When the folder cannot be made.
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
