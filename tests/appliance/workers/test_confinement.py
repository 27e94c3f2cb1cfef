"""Attacks that a worker under a file's control could try, and what it must still be able to do.

Each attack runs at least twice, in separate processes: free, where it must succeed (or the test shows nothing), and
confined, where it must fail. This is tested for each version of Landlock, and for the users root and nobody.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lungstage.appliance.contract.robustness import RobustnessOptions
from lungstage.appliance.dicom.cases import assemble
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.staging import phantom
from lungstage.appliance.staging.covariates import Site
from lungstage.appliance.workers import confinement, process
from lungstage.appliance.workers.messages import Prepare, ReadHeaders, Setting, Stage, WritePhantom
from lungstage.appliance.workers.process import Limits, WorkerProcess
from tests.appliance.workers import attacks
from tests.appliance.workers.attacks import (
    ABI,
    AS_ROOT,
    ATTACKS,
    DENIED,
    FILES,
    GUARDED,
    IS_ROOT,
    NOBODY,
    OF_ITS_OWN_USER,
    PROGRAMS,
    UNAVAILABLE,
    Scene,
    confine,
    in_a_process,
    libc,
    made_scene,
    raw,
    there,
)
from tests.conftest import ROOT


def skip_where_nothing_confines() -> None:
    if ABI < 1:
        pytest.skip("this kernel has no Landlock, or the container forbids it")
    if platform.machine() != "x86_64":
        pytest.skip("the numbers of system calls that are tried here are those of x86_64")


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    skip_where_nothing_confines()
    with made_scene(getattr(request, "param", None)) as scene:
        yield scene


USERS = [pytest.param(None, id="root" if IS_ROOT else "user")] + [pytest.param(NOBODY, id="nobody")] * IS_ROOT
TRIED = [pytest.param(user.values[0], name, id=f"{name}-{user.id}") for user in USERS for name in ATTACKS]
TRIED += [pytest.param(None, name, id=f"{name}-root") for name in AS_ROOT] * IS_ROOT


class Arena:
    """The process that tries the attacks: see :mod:`tests.appliance.workers.attacks`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def what_becomes_of(self, name: str, user: int | None, versions: list[int | None]) -> list[int]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([name, user, versions]), file=self._process.stdin, flush=True)
        became: list[int] = json.loads(self._process.stdout.readline())
        return became


@pytest.fixture(scope="module")
def arena() -> Iterator[Arena]:
    skip_where_nothing_confines()
    command = [sys.executable, "-m", attacks.__name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as small:
        yield Arena(small)
        small.communicate()


@pytest.mark.parametrize(("user", "name"), TRIED)
def test_an_attack_succeeds_free_and_fails_confined(arena: Arena, user: int | None, name: str) -> None:
    confined, free = arena.what_becomes_of(name, user, [ABI, None])
    assert confined in DENIED
    unmet = free in UNAVAILABLE or (name in AS_ROOT and free == errno.EINVAL)
    if unmet or (free in DENIED and (name in GUARDED or (user and name in OF_ITS_OWN_USER))):
        pytest.skip(f"nobody can do this here, confined or not: {os.strerror(free)}")
    assert free == 0


def test_the_oldest_landlock_confines_no_less(arena: Arena) -> None:
    became = {name: arena.what_becomes_of(name, None, [1])[0] for name in ATTACKS | AS_ROOT}
    assert [name for name, status in became.items() if status not in DENIED] == []


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
    assert os.read(read, 1) == b""  # no process has the other end open any more
    os.close(read)


def test_a_folder_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        confinement.confine((tmp_path, tmp_path / "nowhere"))
    (tmp_path / "file").write_text("written")


def verdict(column: int, number: int, *arguments: int, architecture: int | None = None) -> int:
    """The filter's decision on a call, by a model of the machine that runs the filter."""
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
THREAD = 0x3D0F00  # the flags with which glibc starts a thread


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
    """Like the daemon's process, but at its first answer, with all libraries loaded, it tries the attacks."""
    skip_where_nothing_confines()
    monkeypatch.setattr(process, "PROGRAM", TAKEN_OVER)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (tmp_path / "outside").write_text("original")
    paths = phantom.write_study(tmp_path / "study")
    few = RobustnessOptions(perturbations=2)
    worker = WorkerProcess(Setting(read_files(shipped_bundle), "compiled", scratch, robustness=few), Limits())
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
