"""Measure from files to a report on the disk, compared with a straightforward script in the same run: ``make bench``.

Writes ``docs/end-to-end.md``: one-shot staging of 80, 200 and 500 slices, its memory, its start as a process with the
time of its imports, and the daemon's throughput. Ratios are of medians within the run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom

from lungstage.appliance.contract.documents import DocumentOptions, Format
from lungstage.appliance.contract.robustness import NO_ROBUSTNESS, PERTURBATIONS, RobustnessOptions
from lungstage.appliance.dicom.files import read_headers
from lungstage.appliance.dicom.header import RoiHeader
from lungstage.appliance.model.bundle import Bundle, load_bundle
from lungstage.appliance.staging.one_shot import Options, stage_paths
from lungstage.appliance.staging.phantom import ct_datasets, segmentation
from lungstage.export.bundle import build
from tests.conftest import ROOT
from tests.export.conftest import make_run, without_limits
from tests.long.benchmarks.extraction import processor, table
from tests.long.benchmarks.page_time import milliseconds_of_page
from tests.long.benchmarks.straightforward import stage_straightforwardly

PAGE = ROOT / "docs" / "end-to-end.md"
SPACING = (2.5, 0.8, 0.8)  # mm
SIZES = (80, 200, 500)
ASKED_SLICES = 200
DIAMETER = 40  # mm
STUDIES, STUDY_SLICES = 60, 80
COLD_STARTS = 7


def write_study(folder: Path, slices: int, name: str) -> None:
    """Write a CT of 512 x 512, and a SEG of a ball in its middle."""
    random = np.random.default_rng(slices)
    hu = random.integers(-150, 150, size=(slices, 512, 512)).astype(np.int16)
    hu[:, :64] = -1000  # air in front of the patient; without air, the appliance refuses it as no CT of the chest
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = SPACING
    affine[:, 3] = (-204.8, -204.8, -1.25 * slices, 1)
    volume = hd.Volume(
        hu, affine, coordinate_system="PATIENT", frame_of_reference_uid=pydicom.uid.generate_uid(entropy_srcs=[name])
    )
    z, y, x = np.ix_(*((np.arange(n) - n / 2) * step for n, step in zip(hu.shape, SPACING, strict=True)))
    ball = x * x + y * y + z * z <= (DIAMETER / 2) ** 2
    folder.mkdir(parents=True)
    images = ct_datasets(volume, name)
    for k, image in enumerate(images):
        image.save_as(folder / f"{k:04}.dcm", enforce_file_format=True)
    inside = np.flatnonzero(ball.any(axis=(1, 2)))
    part = slice(inside[0], inside[-1] + 1)
    segmentation(images[part], ball[part]).save_as(folder / "seg.dcm", enforce_file_format=True)


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the median of a few repetitions, after one untimed call."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def read_barely(folder: Path, needed: set[str]) -> None:
    """Read the headers of all files, and the needed files completely. Every program must do this."""
    for path in sorted(folder.iterdir()):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        if dataset.SOPInstanceUID in needed or dataset.Modality == "SEG":
            pydicom.dcmread(path).PixelData  # noqa: B018


@dataclass(frozen=True)
class Row:
    """One size: seconds, and the process's peak memory in megabytes."""

    slices: int
    script: float
    ours: float
    with_page: float
    tried_out: float
    bare: float
    report: float
    steps: dict[str, float]
    memory: float
    script_memory: float

    @property
    def cells(self) -> list[str]:
        beyond = self.ours - self.report
        return [
            str(self.slices), f"{self.script:.2f}", f"{self.ours:.3f}", f"{self.script / self.ours:.0f}×",
            f"{self.with_page:.3f}", f"{self.script / self.with_page:.0f}×",
            f"{self.tried_out:.3f}", f"{self.script / self.tried_out:.1f}×",
            f"{self.report:.3f}", f"{self.bare:.3f}", f"{beyond / self.bare:.1f}×",
            f"{self.memory:.0f}", f"{self.script_memory:.0f}",
        ]  # fmt: skip


HEADINGS = [
    "slices", "script, s", "SR, s", "ratio", "SR and PDF, s", "ratio", "SR with robustness, s", "ratio",
    "documents (part of SR), s", "bare reading, s",
    "ours without documents, against bare reading", "ours, peak MB", "script, peak MB",
]  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """A target and its measurement; None if it was not measured."""

    what: str
    bar: float
    found: float | None
    least: bool
    unit: str

    @property
    def cells(self) -> list[str]:
        asked = f"{'at least' if self.least else 'at most'} {self.bar:g}{self.unit}"
        if self.found is None:
            return [self.what, asked, "not measured: no font of the system has these characters"]
        met = self.found >= self.bar if self.least else self.found <= self.bar
        return [self.what, asked, f"{self.found:.3g}{self.unit}, {'met' if met else '**not met**'}"]


def bars(rows: list[Row], page: Mapping[str, float | None]) -> list[Bar]:
    """Return the targets: ratios at 200 slices, the page in a warm process, the command's memory at any size."""
    (row,) = (row for row in rows if row.slices == ASKED_SLICES)
    return [
        Bar(f"{ASKED_SLICES} slices, SR, against the script", 20, row.script / row.ours, True, "×"),
        Bar(f"{ASKED_SLICES} slices, SR and PDF, against the script", 10, row.script / row.with_page, True, "×"),
        Bar(f"{ASKED_SLICES} slices, SR with robustness, against the script", 5, row.script / row.tried_out, True, "×"),
        Bar("the page, warm, CPU", 150, page["Latin"], False, " ms"),
        Bar("the page with a name in CJK, warm, CPU", 400, page["CJK"], False, " ms"),
        Bar("peak memory of the command", 300, max(row.memory for row in rows), False, " MB"),
    ]


def peak_megabytes(command: list[str]) -> float:
    """Return the peak resident memory of a whole process."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", program, *command], check=True, capture_output=True, text=True)
    return int(done.stdout) / 1024


def lungstage(*arguments: object) -> list[str]:
    """Return a command line of the appliance."""
    return [sys.executable, "-m", "lungstage.appliance.cli.main", *map(str, arguments)]


def measure(folder: Path, bundle: Bundle, bundle_folder: Path, slices: int) -> Row:
    """Time one size."""
    study = folder / f"study-{slices}"
    write_study(study, slices, f"end-to-end-{slices}")
    (seg,) = read_headers(study / "seg.dcm")
    assert isinstance(seg, RoiHeader)
    outcomes = []

    def ours(*formats: Format, robustness: RobustnessOptions = NO_ROBUSTNESS) -> None:
        out = folder / f"out-{slices}-{len(outcomes)}-{len(formats)}-{robustness.perturbations}"
        options = Options(documents=DocumentOptions(formats), robustness=robustness)
        outcomes.append(stage_paths([study], bundle, out, options))

    seconds_tried_out = median_seconds(lambda: ours("sr", robustness=RobustnessOptions()), 7)
    assert all(outcome["robustness"]["range"] for outcome in outcomes), outcomes[0]
    robustness = statistics.median(outcome["seconds"]["robustness"] for outcome in outcomes)
    seconds_with_page = median_seconds(lambda: ours("sr", "pdf"), 7)
    outcomes.clear()
    seconds = median_seconds(lambda: ours("sr"), 7)
    assert all(outcome["status"] == "staged" for outcome in outcomes), outcomes[0]
    steps = {
        step: robustness if step == "robustness" else statistics.median(one["seconds"][step] for one in outcomes)
        for step in outcomes[0]["seconds"]
    }

    def script() -> None:
        features = stage_straightforwardly(study, bundle_folder, folder / "script.dcm")
        for name, value in features.items():  # the comparison is valid only if both give the same features
            assert np.isclose(value, outcomes[0]["features"][name], rtol=5e-2), (name, value)

    start = time.perf_counter()
    script()
    script_seconds = time.perf_counter() - start
    bare = median_seconds(lambda: read_barely(study, set(seg.image_references)), 7)
    memory = peak_megabytes(
        lungstage("stage", study, "--bundle", bundle_folder, "--out", folder / f"o{slices}", "--json")
    )
    line = [
        sys.executable,
        "-m",
        "tests.long.benchmarks.straightforward",
        str(study),
        str(bundle_folder),
        str(folder / "s.dcm"),
    ]
    others = seconds_tried_out, bare, steps["report"], steps, memory, peak_megabytes(line)
    return Row(slices, script_seconds, seconds, seconds_with_page, *others)


def cold_start(study: Path, bundle: Path, folder: Path) -> tuple[float, str]:
    """Return the seconds of ``lungstage stage`` as a whole process, and the time of its imports."""
    times = []
    for k in range(COLD_STARTS):
        start = time.perf_counter()
        subprocess.run(
            lungstage("stage", study, "--bundle", bundle, "--out", folder / f"cold-{k}", "--json"),
            check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        times.append(time.perf_counter() - start)
    program = (
        "import gc; gc.disable(); import lungstage.appliance.cli.main, lungstage.appliance.model.bundle,"
        " lungstage.appliance.staging.one_shot"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True
    )
    return statistics.median(times), import_profile(done.stderr)


def import_profile(log: str) -> str:
    """Return the own time of the modules of each package, from Python's ``-X importtime``."""
    own: dict[str, float] = {}
    for match in re.finditer(r"import time:\s+(\d+) \|\s+\d+ \|\s+(\S+)", log):
        package = match.group(2).partition(".")[0]
        own[package] = own.get(package, 0.0) + int(match.group(1)) / 1000
    largest = sorted(own.items(), key=lambda item: -item[1])[:12]
    rest = sum(own.values()) - sum(value for _, value in largest)
    rows = [[package, f"{value:.0f}"] for package, value in (*largest, ("all others", rest))]
    return table(["package", "ms"], rows)


@contextlib.contextmanager
def daemon(root: Path, bundle: Path, perturbations: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Start a daemon, and yield when it is ``ready``."""
    options = [f"--{name}={root / name}" for name in ("inbox", "outbox", "state")]
    environment = {
        **os.environ, "LUNGSTAGE_LOG_LEVEL": "ERROR", "LUNGSTAGE_PERTURBATIONS": str(perturbations),
    }  # fmt: skip
    with subprocess.Popen(
        lungstage("run", "--create", *options, "--bundle", bundle), stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def studies_per_second(folder: Path, bundle: Path, perturbations: int) -> float:
    """Return the daemon's rate, from the time when all studies are in its inbox to the last report."""
    waiting = folder / f"waiting-{perturbations}"
    for k in range(STUDIES):
        write_study(waiting / f"{k:03}", STUDY_SLICES, f"steady-{k}")
    root = folder / f"daemon-{perturbations}"
    with daemon(root, bundle, perturbations):
        started = time.monotonic()
        for path in sorted(waiting.iterdir()):
            path.rename(root / "inbox" / path.name)
        while len(list((root / "outbox").glob("SR-*.dcm"))) < STUDIES:
            if time.monotonic() > started + 300:
                raise RuntimeError("not every study became a report")
            time.sleep(0.02)
        return STUDIES / (time.monotonic() - started)


def main() -> None:
    """Print the report, and write it into the documentation."""
    gc.disable()  # as the command does; here it would also search torch and everything that the benchmark imported
    with tempfile.TemporaryDirectory(prefix="lungstage-bench-") as name:
        folder = Path(name)
        bundle_folder = folder / "bundle"
        build(without_limits(make_run()), bundle_folder)
        bundle = load_bundle(bundle_folder)
        rows = [measure(folder, bundle, bundle_folder, slices) for slices in SIZES]
        seconds, imports = cold_start(folder / f"study-{SIZES[0]}", bundle_folder, folder)
        page = milliseconds_of_page(folder / f"study-{ASKED_SLICES}", bundle)
        rate, rate_tried_out = (studies_per_second(folder, bundle_folder, n) for n in (0, PERTURBATIONS))
    packages = ", ".join(f"{name} {version(name)}" for name in ("pydicom", "highdicom", "SimpleITK", "pyradiomics"))
    steps = [[str(row.slices)] + [f"{1000 * row.steps[step]:.0f}" for step in row.steps] for row in rows]
    text = [
        "# From files to a report",
        f"`make bench` writes this page. {os.cpu_count()} cores of {processor()}; Python {platform.python_version()}, "
        f"{packages}. The CT is 512 × 512 at 0.8 × 0.8 × 2.5 mm, with a SEG of a ball of {DIAMETER} mm and the shipped "
        "bundle's fifteen features at 1 mm. The files are in the page cache; the SR is on the disk at the end.",
        "*Script* is `tests/long/benchmarks/straightforward.py`. It reads the series with SimpleITK and the SEG with "
        "highdicom. It uses PyRadiomics' extractor with the bundle's own parameter file, runs the model with "
        "onnxruntime, and writes a TID 1500 report with highdicom. It checks nothing. *Bare reading* is pydicom "
        "reading every header, and the needed slices completely. "
        f"*With robustness*, each answer is tested on {PERTURBATIONS} perturbed versions (robustness.md); the "
        "other columns are without this. Seconds are measured in a warm process. Peak memory is that of a whole "
        "process from start to end, with SR and PDF.",
        table(HEADINGS, [row.cells for row in rows]),
        "Targets:",
        table(["what", "target", "measured"], [bar.cells for bar in bars(rows, page)]),
        "Ours by step, milliseconds; the total is without robustness:",
        table(["slices", *rows[0].steps], steps),
        "## The command as a process",
        f"`lungstage stage` on the study of {SIZES[0]} slices takes **{seconds:.2f} s** in the shell (median of "
        f"{COLD_STARTS}). The imports' part of it, by the own modules of each package:",
        imports,
        "## The daemon",
        f"{STUDIES} studies of {STUDY_SLICES} slices are moved into the inbox of `lungstage run` at once. From then to "
        f"the last report: **{rate:.1f} studies/s**, and with robustness **{rate_tried_out:.1f} studies/s**.",
    ]
    report = "\n\n".join(text) + "\n"
    print(report)
    PAGE.write_text(report, encoding="utf-8")


if __name__ == "__main__":
    main()
