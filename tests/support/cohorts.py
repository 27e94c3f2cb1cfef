"""Generated cohorts on disk, a Dask cluster of real processes, and functions to kill workers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import psutil

from tests.conftest import ROOT
from tests.support.studies import Study, rtstruct_study, seg_study, square_mask, volume

SPEC = """
featureClass: {firstorder: [Mean, Minimum, Entropy], shape: [Sphericity, MeshVolume], glcm: [Contrast], glszm: }
setting: {binWidth: 25, resampledPixelSpacing: [1, 1, 1], interpolator: sitkLinear}
"""


def _study(number: int, random: np.random.Generator) -> Study:
    """A study with a different texture and mask for each number, with a SEG or contours."""
    base = volume()
    hu = base.array + random.integers(-30, 30, size=base.array.shape)
    source = hd.Volume(
        hu.astype(np.int16), base.affine, coordinate_system="PATIENT", frame_of_reference_uid="1.2.826.0.1.77"
    )
    cut = int(random.integers(0, 6))
    if number % 2:
        corners = ((12.5 + cut, 14.5), (12.5 + cut, 30.5), (27.5, 30.5), (27.5, 14.5))
        return rtstruct_study(lambda _: [corners], source=source)
    mask = square_mask()
    mask[:, : 13 + cut] = False
    return seg_study(mask, source=source)


def _lacking_a_slice(study: Study) -> None:
    del study.slices[5]


def _without_region(study: Study) -> None:
    study.rois.clear()


def _tilted(study: Study) -> None:
    for image in study.slices:
        image.ImageOrientationPatient = [1, 0, 0, 0, 0.966, 0.259]


def _of_another_frame(study: Study) -> None:
    study.slices[4].FrameOfReferenceUID = "1.2.3"


def _short_of_pixels(study: Study) -> None:
    study.slices[4].PixelData = study.slices[4].PixelData[:100]


FAULTS: tuple[Callable[[Study], None], ...] = (
    _lacking_a_slice, _without_region, _tilted, _of_another_frame, _short_of_pixels,
)  # fmt: skip


def write_cohort(folder: Path, studies: int, faults: int) -> Path:
    """Write `studies` studies and their list; `faults` of them, spread over the list, have various faults."""
    random = np.random.default_rng(11)
    lines = ["patient_id,path,roi,age,stage,histology"]
    spoilt = {round((n + 0.5) * studies / faults): FAULTS[n % len(FAULTS)] for n in range(faults)}
    for number in range(studies):
        study = _study(number, random)
        if number in spoilt:
            spoilt[number](study)
        study.write(folder / "studies" / f"{number:03}")
        stage = ("early", "advanced")[int(random.integers(2))]
        lines.append(f'P{number:03},studies/{number:03},,{50 + number % 30},{stage},"squamous, keratinising"')
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "cohort.csv").write_text("\n".join(lines) + "\n")
    return folder / "cohort.csv"


def command(cohort: Path, out: Path, *options: str) -> list[str]:
    """The command line that measures a cohort of :func:`write_cohort`."""
    program = str(Path(sys.executable).parent / "lungstage-train")
    return [program, "measure", str(cohort), "-o", str(out), "--spec", str(cohort.parent / "spec.yaml"), *options]


def written(out: Path) -> dict[str, bytes]:
    """Return the files that a run writes besides its journal, by the end of the file's name."""
    suffixes = (".csv", ".refused.csv", ".toml")
    return {suffix: out.with_suffix(suffix).read_bytes() for suffix in suffixes}


def wait_for_lines(journal: Path, lines: int, process: subprocess.Popen[str]) -> None:
    """Wait until a run has measured `lines` studies; fail if it ends before."""
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert process.poll() is None, f"it ended too early: {process.communicate()}"
        time.sleep(0.002)


@contextlib.contextmanager
def dask_cluster(
    folder: Path, workers: int = 2, *, threads: int = 1, nanny: bool = True, revive: bool = False
) -> Iterator[tuple[str, list[psutil.Popen]]]:
    """Run a scheduler and workers as separate processes, on loopback and without a dashboard.

    With `revive`, a worker that has ended is started again, as a cluster's manager does: a nanny gives up
    if its worker is killed before it reports that it runs.

    Yields
    ------
    tuple
        The scheduler's address, and the processes: the scheduler first, then a worker or its nanny each.
    """
    dask, told = [sys.executable, "-m", "dask"], folder / "scheduler.json"
    local = ["--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
    started: list[psutil.Popen] = []
    with (folder / "dask.log").open("a") as log:

        def start(*arguments: str) -> psutil.Popen:
            return psutil.Popen([*dask, *arguments], cwd=ROOT, stdout=log, stderr=log)

        over = threading.Event()
        manager: threading.Thread | None = None
        try:
            started.append(start("scheduler", *local, "--port", "0", "--scheduler-file", str(told)))
            address = None
            while address is None:
                assert started[0].poll() is None, "the scheduler does not start; see dask.log"
                with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):  # the file is missing or incomplete
                    address = json.loads(told.read_text())["address"]
                time.sleep(0.05)
            more = ["--nthreads", str(threads), "--local-directory", str(folder), *([] if nanny else ["--no-nanny"])]
            worker = ["worker", address, *local, *more]
            started += [start(*worker) for _ in range(workers)]

            def manage() -> None:
                while not over.wait(0.5):
                    started[1:] = [start(*worker) if one.poll() is not None else one for one in started[1:]]

            if revive:
                manager = threading.Thread(target=manage)
                manager.start()
            yield address, started
        finally:
            over.set()
            if manager is not None:
                manager.join()
            told.unlink(missing_ok=True)
            family = [
                *started,
                *(child for one in started if one.is_running() for child in one.children(recursive=True)),
            ]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(family)
