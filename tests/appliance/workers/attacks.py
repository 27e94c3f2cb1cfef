"""Attacks that a worker under a file's control could try, and a small process that tries them.

Each try is a fork. Forks of a process that has loaded the libraries of the suite are slow, so ``python -m
tests.appliance.workers.attacks`` loads none of them: it reads an attack from each line of its standard input, and
answers with a line.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401  (connecting imports it, which nobody may not)
import errno
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.workers import confinement

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
ABI = min(confinement._syscall(444, None, 0, 1), 6)  # Landlock's version; -1 if the kernel has none
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Scene:
    """The targets of the attacks."""

    outside: Path  # a folder with a file `there` and an empty folder `empty`
    scratch: Path  # a writable folder with a file `mine`
    victim: int  # another process of the same user
    port: int  # a server listens here


Attack = Callable[[Scene], Any]


def in_a_process(action: Callable[[], Any], *, user: int | None = None) -> int:
    """Run `action` in a fork; return its errno (0: success), or minus the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 255
        try:
            if user is not None:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            action()
            status = 0
        except OSError as error:
            status = error.errno or 254
        except BaseException:  # for example of an assertion
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def confine(scene: Scene, abi: int = ABI) -> None:
    confinement._RULES = confinement._RULES[:abi]  # type: ignore[misc]  # in a fork
    assert confinement.confine((scene.scratch,)) == confinement.Confinement(True, abi, True)


def raw(number: int, *arguments: Any) -> int:
    ctypes.set_errno(0)
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    result = int(libc.syscall(ctypes.c_long(number), *words))
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def nr(name: str) -> int:
    return confinement._DENIED_ON_X86_64.get(name) or confinement._DENIED[name][0]


def open_with(flags: int, where: Callable[[Scene], Path]) -> Attack:
    return lambda scene: os.open(where(scene), flags, 0o600)


def there(scene: Scene) -> Path:
    return scene.outside / "there"


def on_a_descriptor(action: Callable[[int], Any]) -> Attack:
    """Try an action on a file that is open for reading."""
    return lambda scene: action(os.open(there(scene), os.O_RDONLY))


def vm(name: str) -> Attack:
    def attack(scene: Scene) -> None:
        start = int(Path(f"/proc/{scene.victim}/maps").read_text().split("-")[0], 16)
        own = ctypes.create_string_buffer(8)
        local = ctypes.create_string_buffer(struct.pack("@PN", ctypes.addressof(own), 4))
        remote = ctypes.create_string_buffer(struct.pack("@PN", start, 4))
        raw(nr(name), scene.victim, local, 1, remote, 1, 0)

    return attack


def proc_mem(flags: int) -> Attack:
    return lambda scene: os.open(f"/proc/{scene.victim}/mem", flags)


def spawned(scene: Scene) -> None:
    if os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1]):
        raise PermissionError(errno.EPERM, "in the child")


def forked(scene: Scene) -> None:
    if os.fork() == 0:
        os._exit(0)


def async_signal(scene: Scene) -> None:
    read, _ = os.pipe()
    fcntl.fcntl(read, fcntl.F_SETOWN, scene.victim)


def pidfd_signal(scene: Scene) -> None:
    signal.pidfd_send_signal(os.pidfd_open(scene.victim), 0)


def pidfd_steal(scene: Scene) -> None:
    raw(nr("pidfd_getfd"), os.pidfd_open(scene.victim), 0, 0)


def unix_listener(scene: Scene) -> None:
    socket.socket(socket.AF_UNIX).bind(str(scene.scratch / "socket"))


def memfd_program(scene: Scene) -> None:
    program = os.memfd_create("program")
    os.write(program, Path("/bin/true").read_bytes())
    os.execve(program, ["true"], {})


def io_uring(scene: Scene) -> None:
    raw(nr("io_uring_setup"), 4, ctypes.create_string_buffer(120))


def perf(scene: Scene) -> None:
    raw(nr("perf_event_open"), ctypes.create_string_buffer(struct.pack("=IIQ", 1, 128, 1), 128), 0, -1, -1, 0)


def bpf(scene: Scene) -> None:
    raw(nr("bpf"), 0, ctypes.create_string_buffer(struct.pack("=IIII", 2, 4, 4, 1), 72), 72)  # an array


def attributes_by_ioctl(scene: Scene) -> None:
    file = os.open(there(scene), os.O_RDONLY)
    flags = fcntl.ioctl(file, 0x80086601, bytes(8)) if not is_confined() else bytes(8)
    fcntl.ioctl(file, 0x40086602, flags)  # FS_IOC_SETFLAGS


def is_confined() -> bool:
    return "Seccomp:\t2" in Path("/proc/self/status").read_text()


def system(scene: Scene) -> None:
    if os.system("true"):
        raise PermissionError(errno.EPERM, "in the child")


def terminal(scene: Scene) -> None:
    if os.forkpty()[0] == 0:
        os._exit(0)


def checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), "")


FILES: dict[str, Attack] = {
    "create": open_with(os.O_CREAT | os.O_WRONLY, lambda s: s.outside / "new"),
    "create in /dev/shm": open_with(os.O_TMPFILE | os.O_RDWR, lambda s: Path("/dev/shm")),
    "write": open_with(os.O_WRONLY, there),
    "append": open_with(os.O_WRONLY | os.O_APPEND, there),
    "empty": open_with(os.O_WRONLY | os.O_TRUNC, there),
    "empty by reading": open_with(os.O_RDONLY | os.O_TRUNC, there),
    "unnamed": open_with(os.O_TMPFILE | os.O_RDWR, lambda s: s.outside),
    "truncate": lambda s: os.truncate(there(s), 1),
    "truncate by descriptor": on_a_descriptor(lambda fd: os.truncate(f"/proc/self/fd/{fd}", 1)),
    "write by /proc": on_a_descriptor(lambda fd: os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)),
    "rename": lambda s: os.rename(there(s), s.outside / "elsewhere"),
    "rename in": lambda s: os.rename(there(s), s.scratch / "elsewhere"),
    "rename out": lambda s: os.rename(s.scratch / "mine", s.outside / "elsewhere"),
    "replace": lambda s: os.rename(s.scratch / "mine", there(s)),
    "unlink": lambda s: os.unlink(there(s)),
    "mkdir": lambda s: os.mkdir(s.outside / "new"),
    "rmdir": lambda s: os.rmdir(s.outside / "empty"),
    "symlink": lambda s: os.symlink("/", s.outside / "new"),
    "link": lambda s: os.link(there(s), s.outside / "new"),
    "mkfifo": lambda s: os.mkfifo(s.outside / "new"),
    "link in": lambda s: os.link(there(s), s.scratch / "new"),
    "symlink in the writable folder": lambda s: os.symlink("/", s.scratch / "new"),
    "mkfifo in the writable folder": lambda s: os.mkfifo(s.scratch / "new"),
    "socket in the writable folder": unix_listener,
    "chmod": lambda s: os.chmod(there(s), 0o777),
    "chmod in the writable folder": lambda s: os.chmod(s.scratch / "mine", 0o4777),
    "fchmod": on_a_descriptor(lambda fd: os.fchmod(fd, 0o777)),
    "chown": lambda s: os.chown(there(s), os.getuid(), os.getgid()),
    "lchown": lambda s: os.lchown(there(s), os.getuid(), os.getgid()),
    "fchown": on_a_descriptor(lambda fd: os.fchown(fd, os.getuid(), os.getgid())),
    "utime": lambda s: os.utime(there(s), (0, 0)),
    "utime by descriptor": on_a_descriptor(lambda fd: os.utime(fd, (0, 0))),
    "setxattr": lambda s: os.setxattr(there(s), "user.x", b"y"),
    "removexattr": lambda s: os.removexattr(there(s), "user.here"),
    "setxattrat": lambda s: raw(463, -100, str(there(s)).encode(), 0, b"user.x", struct.pack("@PII", 0, 0, 0), 16),
    "chattr": attributes_by_ioctl,
    "flock": on_a_descriptor(lambda fd: fcntl.flock(fd, fcntl.LOCK_EX)),
    "lock to read": on_a_descriptor(lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH)),
    "lease": on_a_descriptor(lambda fd: fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)),
    "notice": lambda s: fcntl.fcntl(os.open(s.outside, os.O_RDONLY), fcntl.F_NOTIFY, fcntl.DN_CREATE),
    "/dev/null": open_with(os.O_RDWR, lambda s: Path("/dev/null")),
    "own limits of the kernel": open_with(os.O_WRONLY, lambda s: Path("/proc/self/oom_score_adj")),
}
NETWORK: dict[str, Attack] = {
    "TCP": lambda s: socket.socket(),
    "UDP": lambda s: socket.socket(type=socket.SOCK_DGRAM),
    "IPv6": lambda s: socket.socket(socket.AF_INET6),
    "Unix": lambda s: socket.socket(socket.AF_UNIX),
    "netlink": lambda s: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "socketpair": lambda s: socket.socketpair(),
    "connect": lambda s: socket.create_connection(("127.0.0.1", s.port)),
}
PROGRAMS: dict[str, Attack] = {
    "execve": lambda s: os.execv("/bin/true", ["true"]),
    "execve of a file in memory": memfd_program,
    "fork": forked,
    "subprocess": lambda s: subprocess.run(["/bin/true"], check=True),
    "posix_spawn": spawned,
    "system": system,
    "terminal": terminal,
    "namespace": lambda s: raw(nr("unshare"), 0x10000000),
}
OTHERS: dict[str, Attack] = {
    "kill the parent": lambda s: os.kill(os.getppid(), 0),
    "kill": lambda s: os.kill(s.victim, 0),
    "terminate": lambda s: os.kill(s.victim, signal.SIGTERM),
    "kill the group": lambda s: os.killpg(os.getpgid(0), 0),
    "kill everybody": lambda s: os.kill(-1, 0),
    "tkill": lambda s: raw(nr("tkill"), s.victim, 0),
    "tgkill": lambda s: raw(234, s.victim, s.victim, 0),
    "sigqueue": lambda s: checked(libc.sigqueue(s.victim, 0, None)),
    "pidfd": pidfd_signal,
    "fcntl": async_signal,
    "steal a descriptor": pidfd_steal,
    "ptrace": lambda s: raw(nr("ptrace"), 16, s.victim, 0, 0),
    "read memory": vm("process_vm_readv"),
    "read /proc/pid/mem": proc_mem(os.O_RDONLY),
    "write /proc/pid/mem": proc_mem(os.O_RDWR),
    "read the environment": lambda s: os.open(f"/proc/{s.victim}/environ", os.O_RDONLY),
    "open a descriptor": lambda s: os.open(f"/proc/{s.victim}/fd/0", os.O_RDONLY),
    "read the map of memory": lambda s: os.open(f"/proc/{s.victim}/maps", os.O_RDONLY),
    "limit": lambda s: resource.prlimit(s.victim, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY)),
    "own limit": lambda s: raw(302, 0, resource.RLIMIT_CORE, struct.pack("=QQ", 0, 0), None),
    "own limit, the old way": lambda s: raw(nr("setrlimit"), resource.RLIMIT_CORE, struct.pack("=QQ", 0, 0)),
    "priority": lambda s: os.setpriority(os.PRIO_PROCESS, s.victim, 19),
    "affinity": lambda s: os.sched_setaffinity(s.victim, {0}),
    "outlive the parent": lambda s: checked(libc.prctl(1, 0, 0, 0, 0)),
    "shared memory": lambda s: raw(nr("shmctl"), raw(nr("shmget"), 0, 4096, 0o1600), 0, None),
    "semaphore": lambda s: raw(nr("semctl"), raw(nr("semget"), 0, 1, 0o1600), 0, 0),
    "queue": lambda s: raw(nr("msgctl"), raw(nr("msgget"), 0, 0o1600), 0, None),
    "io_uring": io_uring,
}
AS_ROOT: dict[str, Attack] = {
    "chroot": lambda s: os.chroot("/"),
    "bpf": bpf,
    "perf": perf,
    "userfaultfd": lambda s: raw(nr("userfaultfd"), 0),
    "device": lambda s: os.mknod(s.scratch / "new", 0o20600, os.makedev(1, 3)),
    "host name": lambda s: socket.sethostname(socket.gethostname()),
    "mount": lambda s: raw(nr("unshare"), 0x20000),
    "handle": lambda s: raw(nr("name_to_handle_at"), -100, b"/", struct.pack("=Ii", 64, 0) + bytes(64), bytes(8), 0),
    "fanotify": lambda s: raw(nr("fanotify_init"), 0, 0),
    "real time": lambda s: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
}
ATTACKS = FILES | NETWORK | PROGRAMS | OTHERS
UNAVAILABLE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}  # unconfined, on another kernel or file system
# Attacks that a system may forbid by itself: on memory of other processes, namespaces, parts of the kernel, as root
GUARDED = {
    "ptrace", "read memory", "read /proc/pid/mem", "write /proc/pid/mem", "read the environment", "open a descriptor",
    "read the map of memory", "steal a descriptor", "namespace", "io_uring", "execve of a file in memory", *AS_ROOT,
}  # fmt: skip
OF_ITS_OWN_USER = {"kill the parent", "own limits of the kernel"}  # a process that was root before has another user
DENIED = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOSYS)


@contextmanager
def made_scene(user: int | None) -> Iterator[Scene]:
    """Make a scene with files and victim of `user` (None: of the user of this process)."""
    with tempfile.TemporaryDirectory() as root:  # the user "nobody" cannot enter pytest's own folders
        outside, scratch = Path(root, "outside"), Path(root, "scratch")
        for folder in (outside, scratch, outside / "empty"):
            folder.mkdir()
        (outside / "there").write_text("originals")
        with suppress(OSError):  # not every file system has extended attributes
            os.setxattr(outside / "there", "user.here", b"x")
        (scratch / "mine").write_text("mine")
        if user is not None:
            for path in (Path(root), *Path(root).rglob("*")):
                os.chown(path, user, user)
        with (
            subprocess.Popen(["/bin/sleep", "60"], stdin=subprocess.DEVNULL, user=user, group=user) as victim,
            socket.create_server(("127.0.0.1", 0)) as server,
        ):
            yield Scene(outside, scratch, victim.pid, server.getsockname()[1])
            victim.kill()


def tried(scene: Scene, name: str, *, user: int | None, abi: int | None) -> int:
    """Try an attack in a separate process, confined by version `abi` of Landlock (None: free); return its errno."""

    def attack() -> None:
        if abi is not None:
            confine(scene, abi)
        (ATTACKS | AS_ROOT)[name](scene)

    return in_a_process(attack, user=user)


def main() -> None:
    """Answer each line [attack, user, [version of Landlock, ...]] with the result of each try, in one new scene."""
    for line in sys.stdin:
        name, user, versions = json.loads(line)
        with made_scene(user) as scene:
            print(json.dumps([tried(scene, name, user=user, abi=abi) for abi in versions]), flush=True)


if __name__ == "__main__":
    main()
