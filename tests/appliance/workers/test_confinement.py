"""What a worker that a file has taken over tries, and what it must still be able to do.

Each attack runs in a process of its own twice at least: free, where it must succeed (else it would prove nothing), and
confined, where it must fail; so it is for each version of Landlock, and for root as for nobody.
"""

from __future__ import annotations

import ctypes
import encodings.idna  # noqa: F401  (connecting imports it, which nobody may not)
import errno
import fcntl
import json
import mmap
import os
import platform
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers import confinement, process
from lungstage.appliance.workers.messages import Prepare, ReadHeaders, Setting, Stage, WritePhantom
from lungstage.appliance.workers.process import Limits, WorkerProcess
from tests.conftest import ROOT

NOBODY = 65534
IS_ROOT = os.geteuid() == 0
ABI = min(confinement._syscall(444, None, 0, 1), 6)  # Landlock's version; -1 where the kernel has none
libc = ctypes.CDLL(None, use_errno=True)


def skip_where_nothing_confines() -> None:
    if ABI < 1:
        pytest.skip("this kernel has no Landlock, or the container forbids it")
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls that are tried here are those of x86_64")


@dataclass(frozen=True)
class Scene:
    """What there is to be attacked."""

    outside: Path  # a folder with a file `there` and an empty folder `empty`
    scratch: Path  # a folder that may be written to, with a file `mine`
    victim: int  # another process of the same user
    port: int  # somebody listens


Attack = Callable[[Scene], Any]


def in_a_process(action: Callable[[], Any], *, user: int | None = None) -> int:
    """Run `action` in a fork; its errno (0: it went well), or minus the signal that ended it."""
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
        except BaseException:  # an assertion's, say
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
    """What may be done with a file that was opened to be read."""
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
    "priority": lambda s: os.setpriority(os.PRIO_PROCESS, s.victim, 10),
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
UNAVAILABLE = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTTY}  # free, on another kernel or file system
# What a system may forbid by itself: other processes' memory, namespaces, parts of the kernel; what root may do
GUARDED = {
    "ptrace", "read memory", "read /proc/pid/mem", "write /proc/pid/mem", "read the environment", "open a descriptor",
    "read the map of memory", "steal a descriptor", "namespace", "io_uring", "execve of a file in memory", *AS_ROOT,
}  # fmt: skip
OF_ITS_OWN_USER = {"kill the parent", "own limits of the kernel"}  # which one that was root a moment ago is not
DENIED = (errno.EPERM, errno.EACCES, errno.EXDEV, errno.ENOSYS)


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    skip_where_nothing_confines()
    user = getattr(request, "param", None)
    with tempfile.TemporaryDirectory() as root:  # pytest's own folders are shut to nobody
        outside, scratch = Path(root, "outside"), Path(root, "scratch")
        for folder in (outside, scratch, outside / "empty"):
            folder.mkdir()
        (outside / "there").write_text("originals")
        with suppress(OSError):  # not every file system has them
            os.setxattr(outside / "there", "user.here", b"x")
        (scratch / "mine").write_text("mine")
        if user is not None:
            for path in (Path(root), *Path(root).rglob("*")):
                os.chown(path, user, user)
        with (
            subprocess.Popen(["/bin/sleep", "60"], user=user, group=user) as victim,
            socket.create_server(("127.0.0.1", 0)) as server,
        ):
            yield Scene(outside, scratch, victim.pid, server.getsockname()[1])
            victim.kill()


USERS = [pytest.param(None, id="root" if IS_ROOT else "user")] + [pytest.param(NOBODY, id="nobody")] * IS_ROOT
TRIED = [pytest.param(user.values[0], name, id=f"{name}-{user.id}") for user in USERS for name in ATTACKS]
TRIED += [pytest.param(None, name, id=f"{name}-root") for name in AS_ROOT] * IS_ROOT


@pytest.mark.parametrize(("scene", "name"), TRIED, indirect=["scene"])
def test_an_attack_succeeds_free_and_fails_confined(scene: Scene, name: str, request: pytest.FixtureRequest) -> None:
    user, attack = request.node.callspec.params["scene"], (ATTACKS | AS_ROOT)[name]

    def confined() -> None:
        confine(scene)
        attack(scene)

    assert in_a_process(confined, user=user) in DENIED
    free = in_a_process(lambda: attack(scene), user=user)
    unmet = free in UNAVAILABLE or (name in AS_ROOT and free == errno.EINVAL)
    if unmet or (free in DENIED and (name in GUARDED or (user and name in OF_ITS_OWN_USER))):
        pytest.skip(f"nobody can do this here, confined or not: {os.strerror(free)}")
    assert free == 0


def test_the_oldest_landlock_confines_no_less(scene: Scene) -> None:
    passed = []
    for name, attack in (ATTACKS | AS_ROOT).items():

        def confined(attack: Attack = attack) -> None:
            confine(scene, abi=1)
            attack(scene)

        if in_a_process(confined) not in DENIED:
            passed.append(name)
    assert passed == []


def test_each_call_of_the_list_is_denied(scene: Scene) -> None:
    numbers = {name: pair[0] for name, pair in confinement._DENIED.items()} | confinement._DENIED_ON_X86_64

    def each() -> None:
        confine(scene)
        for name, number in numbers.items():
            with pytest.raises(PermissionError) as error:
                raw(number, *[ctypes.c_long(-1)] * 6)
            assert error.value.errno == errno.EPERM, name
        for number in (*confinement._UNKNOWN.values(), 470, 600, 0x40000000 | 39):
            with pytest.raises(OSError, match="not implemented"):
                raw(number, *[ctypes.c_long(-1)] * 6)

    assert in_a_process(each) == 0


def test_calls_of_32_bit_programs_end_the_process(scene: Scene) -> None:
    def getpid_of_i386() -> None:
        code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        code.write(bytes.fromhex("b814000000cd80c3"))
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()

    def confined() -> None:
        confine(scene)
        getpid_of_i386()

    if in_a_process(getpid_of_i386) != 0:
        pytest.skip("this kernel runs no 32-bit programs")
    assert in_a_process(confined) == -signal.SIGSYS


def test_threads_that_were_there_are_filtered_and_admitted_to(scene: Scene) -> None:
    def confined() -> None:
        go, errors = threading.Event(), []

        def early() -> None:
            go.wait()
            try:
                socket.socket()
            except OSError as error:
                errors.append(error.errno)

        thread = threading.Thread(target=early)
        thread.start()
        stands = confinement.confine((scene.scratch,))
        assert stands == confinement.Confinement(True, 0, True)
        assert stands.gaps == ("Landlock is not in force: a worker may write to all files of the daemon's user.",)
        go.set()
        thread.join()
        assert errors == [errno.EPERM]

    assert in_a_process(confined) == 0


def test_a_kernel_that_has_none_of_it_is_no_error(tmp_path: Path) -> None:
    def refused(*_: object) -> int:
        return -1

    class OldKernel:
        syscall = capget = capset = prctl = staticmethod(refused)

    def unconfined() -> None:
        confinement._libc = OldKernel()  # type: ignore[assignment]
        assert confinement.confine((tmp_path,)) == confinement.Confinement()

    assert in_a_process(unconfined) == 0
    assert len(confinement.Confinement().gaps) == 3
    assert confinement.Confinement(True, 1, True).gaps == ()


@pytest.mark.parametrize("scene", USERS[-1:], indirect=True)
def test_who_has_no_privileges_need_not_be_allowed_to_renounce_them(scene: Scene) -> None:
    class UnitThatForbidsIt(ctypes.CDLL):
        capset = staticmethod(lambda *_: -1)

    def confined() -> None:
        confinement._libc = UnitThatForbidsIt(None, use_errno=True)
        confine(scene)

    assert in_a_process(confined, user=NOBODY if IS_ROOT else None) == 0


@pytest.mark.parametrize("missing", ["_landlock", "_seccomp"])
def test_a_kernel_without_the_one_has_the_other(missing: str, scene: Scene) -> None:
    def half_confined() -> None:
        setattr(confinement, missing, lambda *_: 0)
        (gap,) = confinement.confine((scene.scratch,)).gaps
        assert gap.startswith(missing[1:].replace("landlock", "Landlock"))
        {"_landlock": PROGRAMS["fork"], "_seccomp": FILES["create"]}[missing](scene)

    assert in_a_process(half_confined) in (errno.EPERM, errno.EACCES)


@pytest.mark.skipif(not IS_ROOT, reason="only root has any")
def test_root_keeps_only_to_read_what_others_own(scene: Scene) -> None:
    os.chown(there(scene), NOBODY, NOBODY)
    there(scene).chmod(0o600)

    def confined() -> None:
        confine(scene)
        assert there(scene).read_text() == "originals"
        status = Path("/proc/self/status").read_text()
        assert "CapEff:\t0000000000000006\nCapBnd" in status
        assert "CapPrm:\t0000000000000006\n" in status

    assert in_a_process(confined) == 0


def test_it_still_ends_when_its_parent_does(scene: Scene) -> None:
    read, write = os.pipe()

    def parent() -> None:
        if os.fork() == 0:
            libc.prctl(1, signal.SIGKILL)
            confine(scene)
            os.write(write, b"up")
            time.sleep(60)
        assert os.read(read, 2) == b"up"

    assert in_a_process(parent) == 0
    os.close(write)
    assert os.read(read, 1) == b""  # nobody holds the other end any more
    os.close(read)


def test_a_folder_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        confinement.confine((tmp_path, tmp_path / "nowhere"))
    (tmp_path / "file").write_text("written")


def verdict(column: int, number: int, *arguments: int, architecture: int | None = None) -> int:
    """What becomes of a call: the filter, in a model of the machine that runs it."""
    marks = [mark for _, mark, _ in confinement._ARCHITECTURES.values()]
    words = struct.pack("=iIQ6Q", number, architecture or marks[column], 0, *arguments, *[0] * (6 - len(arguments)))
    program = confinement._program(column, marks[column], 1234)
    value = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", words, operand)
        elif code == 0x54:
            value &= operand
        elif code == 0x15:
            at += if_true if value == operand else if_false
        elif code == 0x25:
            at += if_true if value > operand else if_false
        else:
            return operand


ALLOWED, EPERM, ENOSYS, KILLED = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
THREAD = 0x3D0F00  # how glibc starts one


@pytest.mark.parametrize("column", [0, 1], ids=confinement._ARCHITECTURES)
def test_the_filter_of_either_architecture(column: int) -> None:
    for numbers in confinement._DENIED.values():
        assert verdict(column, numbers[column]) == EPERM
    for number in (435, 437, 470, 1 << 30):
        assert verdict(column, number) == ENOSYS
    read, mmap_, futex, memfd_create, execve = ((0, 9, 202, 319, 59), (63, 222, 98, 279, 221))[column]
    for number in (read, mmap_, futex, memfd_create):
        assert verdict(column, number, 1, 2, 3, 4) == ALLOWED
    assert verdict(column, execve) == EPERM
    other = [mark for _, mark, _ in confinement._ARCHITECTURES.values()][1 - column]
    assert verdict(column, read, architecture=other) == KILLED

    clone, kill, tgkill, prlimit, control, ioctl, openat = (
        (56, 62, 234, 302, 72, 16, 257), (220, 129, 131, 261, 25, 29, 56),
    )[column]  # fmt: skip
    assert verdict(column, clone, THREAD) == ALLOWED
    for flags in (signal.SIGCHLD, 0x4111, THREAD | 0x10000000, THREAD | 0x20000):
        assert verdict(column, clone, flags) == EPERM
    for number in (kill, tgkill):
        assert verdict(column, number, 1234) == ALLOWED
        assert {verdict(column, number, pid & (1 << 64) - 1) for pid in (1, 0, -1, -1234)} == {EPERM}
    assert verdict(column, prlimit, 1, 7, 0, 99) == ALLOWED
    assert {verdict(column, prlimit, 0, 7, pointer, 0) for pointer in (1, 1 << 32, 1 << 31)} == {EPERM}
    assert [verdict(column, control, 3, what) for what in (fcntl.F_GETFL, fcntl.F_SETLK)] == [ALLOWED, EPERM]
    assert [verdict(column, ioctl, 3, what) for what in (0x5401, 0x5412)] == [ALLOWED, EPERM]
    for flags in (0, os.O_CLOEXEC, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, os.O_RDWR | os.O_TRUNC):
        assert verdict(column, openat, 3, 0, flags) == ALLOWED
    for flags in (os.O_TRUNC, os.O_TRUNC | os.O_CLOEXEC, os.O_TRUNC | 3, 3):
        assert verdict(column, openat, 3, 0, flags) == EPERM


PROLOGUE = """
import os, sys
from pathlib import Path
from lungstage.appliance.workers.confinement import confine
scratch = Path(sys.argv[1])
confinement = confine([scratch])
assert not confinement.gaps, confinement
"""


TWO_THREADS = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "2")


def confined_python(code: str, scratch: Path, before: str = "") -> subprocess.CompletedProcess[str]:
    skip_where_nothing_confines()
    return subprocess.run(
        [sys.executable, "-c", before + PROLOGUE + code, str(scratch)],
        text=True, capture_output=True, check=False, cwd=ROOT, env=TWO_THREADS,
    )  # fmt: skip


NEEDED = {
    "files": """
folder = scratch / "a" / "b"
folder.mkdir(parents=True)
(folder / "x").write_bytes(bytes(1000))
os.replace(folder / "x", folder / "y")
os.truncate(os.open(folder / "y", os.O_RDWR), 10)
with open(folder / "y", "r+b") as file:
    file.truncate(5); os.fsync(file.fileno())
import shutil, tempfile
shutil.rmtree(scratch / "a")
with tempfile.TemporaryDirectory(dir=scratch) as inner:
    Path(inner, "z").write_text("z")
assert list(scratch.iterdir()) == []
print("told", file=sys.stderr)
""",
    "threads": """
from concurrent.futures import ThreadPoolExecutor
import threading, signal
with ThreadPoolExecutor(8) as pool:
    assert sum(pool.map(abs, range(1000))) == 499500
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.raise_signal(signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
""",
    "BLAS": """
import numpy as np
a = np.random.default_rng(0).random((600, 600))
assert np.allclose(np.linalg.inv(a) @ a, np.eye(600), atol=1e-6)
assert len(os.listdir("/proc/self/task")) > 1
import scipy.linalg
scipy.linalg.svdvals(a[:100, :100])
""",
    "SimpleITK": """
import SimpleITK as sitk, numpy as np
image = sitk.GetImageFromArray(np.random.default_rng(0).random((40, 60, 60)).astype("float32"))
out = sitk.Resample(image, [80, 80, 80], sitk.Transform(), sitk.sitkBSpline, [0, 0, 0], [0.7] * 3)
assert out.GetSize() == (80, 80, 80)
assert len(os.listdir("/proc/self/task")) > 1
sitk.WriteImage(out, str(scratch / "out.nrrd")); sitk.ReadImage(str(scratch / "out.nrrd"))
""",
    "onnxruntime": """
import onnxruntime, numpy as np
model = Path("models/lung1-stage/model.onnx").read_bytes()
for threads in (1, 2, 0):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = {}
    for one in session.get_inputs():
        kind = {"tensor(float)": "float32", "tensor(double)": "float64"}[one.type]
        feeds[one.name] = np.zeros([d if isinstance(d, int) else 1 for d in one.shape], kind)
    assert session.run(None, feeds)
""",
    "decoders": """
import numpy as np, pydicom
from pydicom.data import get_testdata_file
from lungstage.appliance.dicom import jpeg_lossless as lossless
lossless.register()
names = ("MR_small_RLE", "MR_small_jpeg_ls_lossless", "JPEGLSNearLossless_16", "MR_small_jp2klossless", "693_J2KI",
         "JPEG2000", "SC_rgb_jpeg_dcmtk", "MR_small")
for name in names:
    assert pydicom.dcmread(get_testdata_file(name + ".dcm", download=False)).pixel_array.size, name
from pydicom.uid import *
original = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
for syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
    copy = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    copy.compress(syntax)
    copy.save_as(scratch / "copy.dcm")
    assert (pydicom.dcmread(scratch / "copy.dcm").pixel_array == original.pixel_array).all()
from pydicom.pixels import get_decoder
assert all(get_decoder(u).is_available for u in (JPEG2000, HTJ2KLossless, JPEGLossless, JPEGLosslessSV1))
from pydicom.encaps import encapsulate
from tests.support import jpeg_lossless
from tests.support.studies import rtstruct_study
dataset = rtstruct_study().slices[0]
expected = dataset.pixel_array.copy()
dataset.PixelData = encapsulate([jpeg_lossless.encode(expected.view(np.uint16), 16, 1)])
dataset["PixelData"].is_undefined_length = True
dataset.file_meta.TransferSyntaxUID = JPEGLossless
assert (dataset.pixel_array == expected).all()
""",
    "standard library": """
import platform, uuid, locale, random, tempfile, zlib, hashlib, select
platform.uname(); uuid.uuid4(); locale.getlocale(); random.SystemRandom().random()
read, write = os.pipe()
from multiprocessing.connection import Connection
Connection(write, readable=False).send(bytes(1000))
ours = Connection(read, writable=False)
assert ours.poll(1) and ours.recv() == bytes(1000)
""",
}


@pytest.mark.parametrize("what", NEEDED)
def test_what_the_steps_need_stays(what: str, tmp_path: Path) -> None:
    done = confined_python(NEEDED[what], tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("crash", "signal_"), [
    ("os.abort()", signal.SIGABRT), ("import ctypes; ctypes.string_at(0)", signal.SIGSEGV),
])  # fmt: skip
def test_a_crash_is_told_as_what_it_is(crash: str, signal_: signal.Signals, tmp_path: Path) -> None:
    assert confined_python(crash, tmp_path).returncode == -signal_


def test_memory_that_runs_out_is_told(tmp_path: Path) -> None:
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (300 << 20, 300 << 20))"
    code = """
try:
    bytearray(400 << 20)
except MemoryError:
    sys.exit(7)
"""
    done = confined_python(code, tmp_path, before=limit)
    assert done.returncode == 7, done.stderr


TAKEN_OVER = """
import json, os, resource, socket, sys
from pathlib import Path
from lungstage.appliance.workers import frames
from lungstage.appliance.workers.main import main

scratch = Path(sys.argv[5])
attacks = {
    "write": lambda: (scratch.parent / "outside").write_text("changed"),
    "create": lambda: (scratch.parent / "new").touch(),
    "connect": lambda: socket.create_connection(("127.0.0.1", 9)),
    "fork": lambda: os.fork() or os._exit(0),
    "execute": lambda: os.execv("/bin/true", ["true"]),
    "kill the daemon": lambda: os.kill(os.getppid(), 0),
    "read the daemon's memory": lambda: open(f"/proc/{os.getppid()}/mem"),
    "have more time": lambda: resource.prlimit(0, resource.RLIMIT_CPU, resource.getrlimit(resource.RLIMIT_CPU)),
}

def became_of(attack):
    try:
        attack()
    except OSError as error:
        return error.errno

def taken_over(answers, content):
    frames.write = write
    (scratch / "tried.json").write_text(json.dumps({name: became_of(attack) for name, attack in attacks.items()}))
    write(answers, content)

write, frames.write = frames.write, taken_over
main()
"""


def test_a_worker_works_and_can_do_no_more(
    tmp_path: Path, shipped_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that the daemon starts, but that it attacks with all libraries loaded, as it first answers."""
    skip_where_nothing_confines()
    monkeypatch.setattr(process, "PROGRAM", TAKEN_OVER)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "outside").write_text("original")
    paths = phantom.write_study(tmp_path / "study")
    worker = WorkerProcess(Setting(read_files(shipped_bundle), "compiled", scratch), Limits())
    try:
        worker.set_up()
        assert worker.confinement.gaps == ()
        tried = json.loads((scratch / "tried.json").read_text())
        assert len(tried) == 8
        assert {name: became for name, became in tried.items() if became not in DENIED} == {}
        (case,) = assemble(header for path in paths for header in worker.call(ReadHeaders(path)))
        plan = worker.call(Prepare(case, settled=True, roi_name=None, match_by_geometry=False))
        assert (
            worker.call(Stage(plan, datetime(2026, 3, 4, tzinfo=UTC), Site().of_study(""))).outcome["status"]
            == "staged"
        )
        with pytest.raises(PermissionError):
            worker.call(WritePhantom(tmp_path / "elsewhere", "study"))
        assert worker.call(WritePhantom(scratch / "canary", "study"))
    finally:
        worker.end()
    assert (tmp_path / "outside").read_text() == "original"
