"""What the system says of the disk that a folder lies on."""

from __future__ import annotations

import os
import re
from pathlib import Path

# Changes made by another machine ring no event here.
_NETWORKED = re.compile(r"nfs4?|cifs|smb3?|smbfs|9p|virtiofs|vboxsf|prl_fs|afs|ceph|lustre|glusterfs|fuse(\..*)?")


def is_networked(kind: str) -> bool:
    """Whether a file system of that type lies on the network, or in another program's hands (FUSE)."""
    return _NETWORKED.fullmatch(kind) is not None


def file_system(path: Path) -> str:
    """Name of the type of the file system that holds a path, e.g. ``ext4`` or ``nfs4``; empty where it is not known."""
    place, best, kind = os.path.realpath(path), -1, ""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4])
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= best:  # of two at the same point, the later covers the earlier
            best, kind = len(point), rest.split()[0]
    return kind


def free_mb(folder: Path) -> int | None:
    """Return the space that this user may still fill on a folder's disk, in MB; None where that cannot be told."""
    try:
        status = os.statvfs(folder)
    except OSError:  # it is away, which whoever writes to it will say
        return None
    return status.f_bavail * status.f_frsize // 1024**2
