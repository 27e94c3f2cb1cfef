"""The confinement of a worker that reads untrusted files: it may read, compute, and write into a few folders.

:func:`confine` permanently removes all rights that no step needs from the calling process. It needs no privilege. It
uses three mechanisms of Linux:

* *no privileges*: of root's rights only reading other users' files remains, and no program can gain new rights;
* *Landlock* (Linux 5.13): the file system can be read, but only the named folders can be written. Other processes,
  above all the daemon, cannot be traced or signalled, and their memory cannot be read;
* *seccomp*: a filter of system calls for everything else. It denies sockets, programs, processes, signals and other
  processes' memory. It also denies file operations that Landlock allows: in general (modes, owners, times, attributes,
  locks), or on older kernels (Landlock of Debian 12 does not cover truncation and devices). So a kernel with the
  oldest Landlock confines as much.

The filter lists the denied calls. A list of allowed calls would be stricter. But it would have to contain every call
of every release of glibc, numpy, ITK and onnxruntime. A missing call would end a worker at a site. Instead, the
filter answers every call newer than the list as an older kernel does (ENOSYS), which all libraries expect. So calls
that Linux adds later are not open. Threads and executable memory stay allowed because the libraries need them.
``memfd_create`` also stays allowed: frames in JPEG lossless are decoded through a file in memory.

This module assembles the filter itself. libseccomp is not always installed (Debian's images contain it only for apt).
Its version in Debian 12 does not know the newest of these calls. Its binding for ctypes has had no release since 2021.
It would replace only the short :func:`_program`. The numbers of system calls never change.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand
_Condition = tuple[int, int, tuple[int, ...]]  # where a word of the arguments lies, mask, what it may then be


@dataclass(frozen=True, slots=True)
class Confinement:
    """The parts of the confinement that are active.

    Attributes
    ----------
    no_new_privileges
        A started program gains no rights; of root's rights only access to other users' files is left.
    landlock_abi
        Landlock's version, up to the newest that this module knows; 0 if Landlock is not active.
    seccomp
        The filter of system calls is active for all threads.
    """

    no_new_privileges: bool = False
    landlock_abi: int = 0
    seccomp: bool = False

    @property
    def gaps(self) -> tuple[str, ...]:
        """The missing parts, one sentence each; empty if the process is fully confined."""
        means = {
            "no_new_privs is not in force: a program that a worker starts may gain privileges.": self.no_new_privileges,
            "Landlock is not in force: a worker may write to all files of the daemon's user.": self.landlock_abi > 0,
            "seccomp is not in force: a worker may open sockets and start processes.": self.seccomp,
        }
        return tuple(gap for gap, holds in means.items() if not holds)


def confine(writable: Sequence[Path]) -> Confinement:
    """Confine this process, all its threads and all processes that it would start; this cannot be undone.

    Call this before any library starts a thread. Privileges and, up to Linux 6.19, Landlock apply only to the calling
    thread and to threads that it starts later. If other threads exist, Landlock counts as not active. Open files stay
    open. Set limits (:func:`resource.setrlimit`) and the signal at the parent's death before this call.

    Parameters
    ----------
    writable
        Folders in which, at any depth, files and folders may be made, written, renamed in their place, and removed.
        Links, pipes and devices may not be made even there.

    Returns
    -------
    Confinement
        The active parts. It is no error if the kernel lacks a mechanism or a container forbids it.

    Raises
    ------
    OSError
        A folder of `writable` cannot be opened; nothing has been changed.
    """
    if sys.platform != "linux":
        return Confinement()
    with _opened(writable) as folders:
        no_new_privileges = _renounce_privileges()
        landlock_abi = _landlock(folders)
    return Confinement(no_new_privileges, landlock_abi if _is_alone() else 0, _seccomp())


@contextmanager
def _opened(folders: Sequence[Path]) -> Iterator[list[int]]:
    with ExitStack() as opened:
        descriptors: list[int] = []
        for folder in folders:
            descriptors += [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
            opened.callback(os.close, descriptors[-1])
        yield descriptors


def _is_alone() -> bool:
    """Whether the process is known to have one thread."""
    with suppress(OSError):  # no /proc
        return len(os.listdir("/proc/self/task")) == 1
    return False


_libc = ctypes.CDLL(None, use_errno=True)


def _syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call the kernel; -1 if it refuses."""
    words = (ctypes.c_long(word) if isinstance(word, int) else word for word in arguments)
    return int(_libc.syscall(ctypes.c_long(number), *words))


# linux/prctl.h, linux/capability.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES_VERSION: Final = 0x20080522
_OVER_FILE_MODES: Final = 1 << 1 | 1 << 2  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: studies of root stay readable


def _renounce_privileges() -> bool:
    """Keep only root's right to read all files, and gain no new rights; True if that succeeded."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITIES_VERSION, 0))
    data = ctypes.create_string_buffer(24)
    if _libc.capget(header, data):
        return False
    effective, permitted, *_ = struct.unpack("=6I", data.raw)
    kept = struct.pack("=6I", effective & _OVER_FILE_MODES, permitted & _OVER_FILE_MODES, 0, 0, 0, 0)
    if kept != data.raw[:24] and _libc.capset(header, ctypes.create_string_buffer(kept)):  # a unit may forbid it
        return False
    return int(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0)))) == 0


# Landlock: linux/landlock.h; its system calls have these numbers on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1  # flag of the first call: only return the version
_PATH_BENEATH: Final = 1

_EXECUTE, _WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE = 1 << 0, 1 << 1, 1 << 4, 1 << 5
_MAKE_DIR, _MAKE_REG, _MAKE_OTHERS = 1 << 7, 1 << 8, 1 << 6 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_BIND_AND_CONNECT_TCP: Final = 1 << 0 | 1 << 1
_ABSTRACT_SOCKETS_AND_SIGNALS: Final = 1 << 0 | 1 << 1

_WRITING: Final = _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _TRUNCATE
# First version; then the denied rights on files, on the network, and towards other processes.
_RULES: Final[tuple[tuple[int, int, int, int], ...]] = (
    (1, _EXECUTE | _MAKE_OTHERS | _WRITING & ~_TRUNCATE, 0, 0),
    (2, _REFER, 0, 0),  # moving and linking from folder to folder; version 1 always denies that
    (3, _TRUNCATE, 0, 0),
    (4, 0, _BIND_AND_CONNECT_TCP, 0),
    (5, _IOCTL_DEV, 0, 0),
    (6, 0, 0, _ABSTRACT_SOCKETS_AND_SIGNALS),
)


def _landlock(writable: Sequence[int]) -> int:
    """Allow writing only to `writable`; return Landlock's version, or 0 if there is none."""
    abi = min(_syscall(_CREATE_RULESET, None, 0, _VERSION), _RULES[-1][0])
    if abi < 1:
        return 0
    denied = [0, 0, 0]
    for since, *rights in _RULES:
        if since <= abi:
            denied = [mask | more for mask, more in zip(denied, rights, strict=True)]
    attributes = struct.pack("=QQQ", *denied)[: 8 if abi < 4 else 16 if abi < 6 else 24]  # the length of that version
    ruleset = _syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0)
    if ruleset < 0:
        return 0
    try:
        for folder in writable:
            rule = ctypes.create_string_buffer(struct.pack("=Qi", _WRITING & denied[0], folder))
            if _syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0):
                return 0
        return abi if _syscall(_RESTRICT_SELF, ruleset, 0) == 0 else 0
    finally:
        os.close(ruleset)


# seccomp: linux/seccomp.h, linux/audit.h; each system call with its numbers on x86_64 and on aarch64.
_ARCHITECTURES: Final = {"x86_64": (0, 0xC000003E, 317), "aarch64": (1, 0xC00000B7, 277)}  # column, mark, seccomp
_NEWEST: Final = 469  # of Linux 6.18; from 424 on both architectures use the same numbers
_SET_MODE_FILTER: Final = 1
_ALL_THREADS, _NO_SPECULATION_PENALTY = 1 << 0, 1 << 2  # the penalty cost throughput before Linux 5.16

# fmt: off
_DENIED: Final = {
    # the network, and descriptors from and to other processes
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206), "sendmsg": (46, 211), "sendmmsg": (307, 269),
    "recvmsg": (47, 212), "recvmmsg": (299, 243), "setsockopt": (54, 208), "pidfd_getfd": (438, 438),
    # programs
    "execve": (59, 221), "execveat": (322, 281),
    # signals to other processes, their memory, their share of the machine; and a change of its own limits
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "process_mrelease": (448, 448),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "move_pages": (279, 239), "migrate_pages": (256, 238),
    "setpriority": (141, 140), "ioprio_set": (251, 30), "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119), "sched_setparam": (142, 118), "sched_setattr": (314, 274),
    "setrlimit": (160, 164),
    # named queues, semaphores and shared memory
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193),
    "semtimedop": (220, 192), "semctl": (66, 191), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188),
    "msgctl": (71, 187), "mq_open": (240, 180), "mq_unlink": (241, 181),
    # file operations that Landlock allows: modes, owners, times, attributes, and locks, which could stop the daemon
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchown": (93, 55), "fchownat": (260, 54),
    "utimensat": (280, 88), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
    "setxattrat": (463, 463), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466), "file_setattr": (469, 469), "truncate": (76, 45), "flock": (73, 32),
    # files opened in other ways than by path
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "fanotify_init": (300, 262),
    # namespaces and mounts
    "unshare": (272, 97), "setns": (308, 268), "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40),
    "umount2": (166, 39), "move_mount": (429, 429), "open_tree": (428, 428), "open_tree_attr": (467, 467),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442),
    # parts of the kernel that no step needs, and that attacks have used
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92),
    # the machine itself, if the user is root
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "sethostname": (170, 161),
    "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "clock_adjtime": (305, 266), "syslog": (103, 116), "vhangup": (153, 58),
}
_DENIED_ON_X86_64: Final = {  # of the same kinds; aarch64 does not have them
    "fork": 57, "vfork": 58, "chmod": 90, "chown": 92, "lchown": 94, "utime": 132, "utimes": 235, "futimesat": 261,
    "modify_ldt": 154, "iopl": 172, "ioperm": 173, "uselib": 134,
}
# fmt: on
_UNKNOWN: Final = {  # answered as by an older kernel: their arguments are in memory that a filter cannot see
    "clone3": 435,  # glibc then starts threads with clone
    "openat2": 437,
}


def _word(argument: int, half: int = 0) -> int:
    """Return the offset of half an argument in the filter's input; the lower half is first."""
    return 16 + 8 * argument + 4 * half


_WHOLE: Final = 0xFFFFFFFF
_CLONE_THREAD, _CLONE_NAMESPACES = 0x10000, 0x7E020000
_FCNTL: Final = (  # no locks and no signals
    fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL,
)  # fmt: skip
_IOCTL: Final = (  # whether it is a terminal, and its width; number of readable bytes; flags
    termios.TCGETS, termios.TIOCGWINSZ, termios.FIONREAD, termios.FIONBIO, termios.FIOCLEX, termios.FIONCLEX,
)  # fmt: skip
_PRCTL: Final = (15, 16, 0x53564D41, 51, 64)  # PR_{SET,GET}_NAME of a thread, PR_SET_VMA, PR_{SVE,SME}_GET_VL


def _conditions(column: int, pid: int) -> dict[int, tuple[_Condition, ...]]:
    """Return the calls that are allowed only with harmless arguments; `pid` is this process."""
    # Opening a file for reading must not truncate it; the oldest Landlock would allow that.
    opened = (os.O_ACCMODE | os.O_TRUNC, (*range(os.O_ACCMODE), os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC))
    rules: dict[tuple[int, ...], tuple[_Condition, ...]] = {
        (56, 220): ((_word(0), _CLONE_THREAD | _CLONE_NAMESPACES, (_CLONE_THREAD,)),),  # clone: threads alone
        (62, 129): ((_word(0), _WHOLE, (pid,)),),  # kill
        (234, 131): ((_word(0), _WHOLE, (pid,)),),  # tgkill: it is what abort() calls
        (302, 261): ((_word(2), _WHOLE, (0,)), (_word(2, 1), _WHOLE, (0,))),  # prlimit64: only asking
        (72, 25): ((_word(1), _WHOLE, _FCNTL),),  # fcntl
        (16, 29): ((_word(1), _WHOLE, _IOCTL),),  # ioctl
        (157, 167): ((_word(0), _WHOLE, _PRCTL),),  # prctl
        (257, 56): ((_word(2), *opened),),  # openat
        (2,): ((_word(1), *opened),),  # open
    }
    return {numbers[column]: conditions for numbers, conditions in rules.items() if column < len(numbers)}


_LOAD, _AND, _IF_EQUAL, _IF_GREATER, _RETURN = 0x20, 0x54, 0x15, 0x25, 0x06  # linux/bpf_common.h
_NUMBER, _ARCHITECTURE = 0, 4  # their offsets in the filter's input
_ALLOW: Final[_Instruction] = (_RETURN, 0, 0, 0x7FFF0000)
_KILL: Final[_Instruction] = (_RETURN, 0, 0, 0x80000000)
_DENY: Final[_Instruction] = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
_DO_NOT_KNOW: Final[_Instruction] = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)


def _program(column: int, architecture: int, pid: int) -> list[_Instruction]:
    """Assemble the filter, which decides on a call by its number.

    If the number alone decides, Linux remembers the answer (from 5.11 on). The calls with conditions come first.
    """
    denied = [numbers[column] for numbers in _DENIED.values()]
    if column == 0:
        denied += _DENIED_ON_X86_64.values()
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), _KILL,  # 32-bit programs use other numbers
        (_LOAD, 0, 0, _NUMBER), (_IF_GREATER, 0, 1, _NEWEST), _DO_NOT_KNOW,
    ]  # fmt: skip
    answers = {number: _only_if(conditions) for number, conditions in _conditions(column, pid).items()}
    answers |= {number: [_DENY] for number in denied} | {number: [_DO_NOT_KNOW] for number in _UNKNOWN.values()}
    for number, answer in answers.items():
        program += [(_IF_EQUAL, 0, len(answer), number), *answer]
    return [*program, _ALLOW]


def _only_if(conditions: Sequence[_Condition]) -> list[_Instruction]:
    """Allow a call if all conditions are met."""
    program: list[_Instruction] = []
    for word, mask, values in conditions:
        program += [(_LOAD, 0, 0, word), (_AND, 0, 0, mask)]
        program += [(_IF_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        program.append(_DENY)
    return [*program, _ALLOW]


def _seccomp() -> bool:
    """Activate the filter for all threads; True if that succeeded."""
    machine = os.uname().machine
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        return False
    column, architecture, number = _ARCHITECTURES[machine]
    program = _program(column, architecture, os.getpid())
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(instructions)))
    return _syscall(number, _SET_MODE_FILTER, _ALL_THREADS | _NO_SPECULATION_PENALTY, described) == 0
