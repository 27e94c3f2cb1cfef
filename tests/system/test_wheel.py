"""The wheel: one complete package named ``lungstage``, for every Python from 3.11, installed without a compiler."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from typer.testing import CliRunner

from lungstage.appliance.cli.main import app
from lungstage.appliance.staging import phantom
from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]  # the wheel is built three times

TOPS = ("appliance", "export", "training")
BUNDLES = ("lung-contour", "lung1-stage", "lung1-survival")
BUNDLE = {f"lungstage/models/{name}/{path.name}" for name in BUNDLES for path in (ROOT / "models" / name).iterdir()} | {
    "lungstage/models/LICENSE"
}
NIIVUE = "lungstage/appliance/page/static/niivue.js"  # `make viewer` makes it; these tests use a replacement
DATA = {
    "lungstage/py.typed",
    "lungstage/appliance/radiomics/_kernels.pyi",
    "lungstage/appliance/descriptors/lidc.json",
    *(
        f"lungstage/appliance/{room}/languages/{language}.po"
        for room in ("page", "report")
        for language in ("de", "en", "fr")
    ),
    *(
        f"lungstage/appliance/page/{path.parent.name}/{path.name}"
        for folder in ("static", "templates")
        for path in (ROOT / "appliance" / "page" / folder).iterdir()
    ),
    *(f"lungstage/appliance/page/languages/sentences/{language}.po" for language in ("de", "fr")),
    NIIVUE,
    "lungstage/appliance/service/lungstage.service",
    "lungstage/appliance/service/lungstage-gateway.service",
    "lungstage/appliance/service/lungstage-page.service",
    "lungstage/training/cohorts/lung1.toml",
    "lungstage/training/reporting/comparison.html.j2",
    "lungstage/training/reporting/page.css",
    "lungstage/training/reporting/report.html.j2",
}
KERNELS = "lungstage/appliance/radiomics/_kernels.abi3.so"
BIN = Path(sys.executable).parent


def run(*command: object, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
    # The installed code is compiled at its first import; the compiled files are kept for later commands.
    left_out = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    ours = {name: value for name, value in os.environ.items() if name not in left_out}
    environment = {**ours, "PATH": f"{BIN}{os.pathsep}{ours['PATH']}", **variables}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def done(*command: object, cwd: Path | None = None, **variables: str) -> str:
    finished = run(*command, cwd=cwd, **variables)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def build(tree: Path, what: str, into: Path) -> Path:
    """Build like ``make wheel``, but with this environment's setuptools, so that nothing is downloaded."""
    done(sys.executable, "-m", "build", "--no-isolation", f"--{what}", "--outdir", into, tree)
    (made,) = into.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return made


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with their links, so that the build writes nothing into this repository."""
    tree = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("lungstage", "models", *TOPS):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    (tree / NIIVUE.removeprefix("lungstage/")).write_text("export {};")
    (tree / "NOTICE").write_text("whose the viewer is")
    (tree / "models" / "mine").mkdir()
    (tree / "models" / "mine" / "model.onnx").write_bytes(b"a bundle that the developer keeps for himself")
    return tree


@pytest.fixture(scope="module")
def source(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(build(checkout, "sdist", folder)) as archive:
        assert all(member.isfile() or member.isdir() for member in archive), "without links it can be unpacked anywhere"
        archive.extractall(folder / "unpacked", filter="data")
    (tree,) = (folder / "unpacked").iterdir()
    return tree


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return repaired(build(source, "wheel", tmp_path_factory.mktemp("built")), tmp_path_factory.mktemp("wheel"))


def repaired(built: Path, into: Path) -> Path:
    done(BIN / "auditwheel", "repair", "--wheel-dir", into, built)
    (wheel,) = into.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def test_it_holds_the_one_package_and_all_of_it(wheel: Path) -> None:
    found = contents(wheel)
    (about,) = {name.partition("/")[0] for name in found} - {"lungstage"}
    assert about.endswith(".dist-info")
    assert found[f"{about}/top_level.txt"] == b"lungstage\n"
    code = {f"lungstage/{path.relative_to(ROOT).as_posix()}" for top in TOPS for path in (ROOT / top).rglob("*.py")} | {
        "lungstage/__init__.py"
    }
    assert {name for name in found if name.startswith("lungstage/")} == code | DATA | BUNDLE | {KERNELS}
    assert all(found[name] == (ROOT / name.removeprefix("lungstage/")).read_bytes() for name in BUNDLE)


def metadata(wheel: Path) -> Message:
    (about,) = [data for name, data in contents(wheel).items() if name.endswith(".dist-info/METADATA")]
    return message_from_bytes(about)


def licence_files(wheel: Path) -> set[str]:
    return {name.split("/licenses/")[1] for name in contents(wheel) if "/licenses/" in name}


def test_one_wheel_serves_every_python_and_old_machines(wheel: Path, tmp_path: Path) -> None:
    """Its name says so, and it needs no symbol newer than glibc 2.17."""
    assert re.fullmatch(r"lungstage-[\d.]+-cp311-abi3-(manylinux\w+_x86_64\.?)+\.whl", wheel.name), wheel.name
    (tmp_path / "kernels").write_bytes(contents(wheel)[KERNELS])
    with (tmp_path / "kernels").open("rb") as file:
        needs = [
            version.name.removeprefix("GLIBC_")
            for _, versions in ELFFile(file).get_section_by_name(".gnu.version_r").iter_versions()
            for version in versions
        ]
    assert needs
    assert max(tuple(map(int, version.split("."))) for version in needs) <= (2, 17)
    assert metadata(wheel)["Requires-Python"] == ">=3.11"


def test_its_metadata_name_every_licence(wheel: Path) -> None:
    expected = "Apache-2.0 AND CC-BY-NC-3.0 AND BSD-2-Clause AND ISC AND MIT"
    assert metadata(wheel)["License-Expression"] == expected
    assert licence_files(wheel) == {"LICENSE", "NOTICE", "lungstage/models/LICENSE"}


def test_without_bundle_and_viewer_it_is_all_apache(source: Path, wheel: Path, tmp_path: Path) -> None:
    # The files of an earlier build in build/ would be packed too, so only the kernels, which are the same, are kept.
    tree = shutil.copytree(source, tmp_path / "tree", ignore=shutil.ignore_patterns("build"))
    (compiled,) = (source / "build").glob(f"lib*/{KERNELS}")
    (tree / compiled.relative_to(source)).parent.mkdir(parents=True)
    shutil.copy2(compiled, tree / compiled.relative_to(source))
    shutil.rmtree(tree / "lungstage" / "models")
    (tree / NIIVUE).unlink()
    free = build(tree, "wheel", tmp_path / "built")
    assert metadata(free)["License-Expression"] == "Apache-2.0"
    assert licence_files(free) == {"LICENSE"}
    ours = {name for name in contents(wheel) if name.startswith("lungstage/")}
    assert {name for name in contents(free) if name.startswith("lungstage/")} == ours - BUNDLE - {NIIVUE}
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--no-index", "--no-deps")
    done(*pip, "--target", target, free)
    asked = [sys.executable, "-P", "-m", "lungstage.appliance.cli.main"]
    assert "CC BY-NC" not in done(*asked, "--version", cwd=tmp_path, PYTHONPATH=str(target))
    refused = run(*asked, "verify", "lung1-stage", cwd=tmp_path, PYTHONPATH=str(target))
    assert (refused.returncode, len(refused.stderr.splitlines())) == (3, 1)
    assert "the name of a shipped one: none." in refused.stderr


@pytest.mark.parametrize(
    "where", [("--platform", "win_amd64"), ("--platform", "macosx_14_0_arm64"), ("--python-version", "3.10")], ids=str
)
def test_where_it_does_not_fit_pip_says_so_in_one_line(wheel: Path, where: Sequence[str], tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index")
    refused = run(*pip, "--target", tmp_path, "--only-binary", ":all:", *where, wheel)
    assert refused.returncode != 0
    (line,) = refused.stderr.splitlines()
    assert line == f"ERROR: {wheel.name} is not a supported wheel on this platform."


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of a clean environment: no cache, no compiler, and only the wheel's requirements."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place)
    pip = (sys.executable, "-m", "pip", "--python", place / "bin" / "python", "--disable-pip-version-check")
    install = ("install", "--quiet", "--no-cache-dir", "--no-compile", "--constraint", ROOT / "constraints.txt")
    done(*pip, *install, wheel, CC="/bin/false", cwd=place)
    return place / "bin"


class TestInstalled:
    """In a clean environment."""

    def test_it_brings_no_pyradiomics(self, installed: Path, tmp_path: Path) -> None:
        looked = run(installed / "python", "-c", "import radiomics", cwd=tmp_path)
        assert "No module named 'radiomics'" in looked.stderr

    def test_the_demo_runs(self, installed: Path, tmp_path: Path) -> None:
        demo = (installed / "lungstage", "demo", "--out", tmp_path / "demo")
        assert "and read back" in done(*demo, cwd=tmp_path)

    def test_the_demo_runs_with_the_bundle_of_survival(self, installed: Path, tmp_path: Path) -> None:
        demo = (installed / "lungstage", "demo", "--bundle", "lung1-survival", "--out", tmp_path / "demo")
        said = done(*demo, cwd=tmp_path, LUNGSTAGE_PERTURBATIONS="0", LUNGSTAGE_FORMATS="sr")
        assert "and read back" in said
        assert "survival at 2 years: " in said

    def test_it_answers_as_the_checkout_does(self, installed: Path, tmp_path: Path) -> None:
        phantom.write_study(tmp_path / "study")
        words = ("stage", str(tmp_path / "study"), "--bundle", "lung1-stage", "--json", "--out")
        theirs = json.loads(done(installed / "lungstage", *words, tmp_path / "a", cwd=tmp_path))
        ours = json.loads(CliRunner().invoke(app, [*words, str(tmp_path / "b")]).stdout)
        assert theirs["status"] == "staged"
        for one in (theirs, ours):
            one["seconds"] = dict.fromkeys(one["seconds"])
            one["sr"] = Path(one["sr"]).name
            one["documents"] = {kind: Path(path).name for kind, path in one["documents"].items()}
        assert theirs == ours

    def test_it_says_its_licences(self, installed: Path, tmp_path: Path) -> None:
        said = done(installed / "lungstage", "--version", cwd=tmp_path)
        assert f"Apache-2.0 (code); {'; '.join(f'CC BY-NC 3.0 (bundle {name})' for name in BUNDLES)}" in said

    def test_a_name_that_no_bundle_bears_is_refused_in_one_line(self, installed: Path, tmp_path: Path) -> None:
        refused = run(installed / "lungstage", "verify", "lung2-stage", cwd=tmp_path)
        assert refused.returncode == 3
        (line,) = refused.stderr.splitlines()
        assert "There is no bundle lung2-stage" in line
        assert "the name of a shipped one: lung1-stage, lung1-survival, lung-contour." in line

    def test_what_needs_an_extra_names_it_in_one_line(self, installed: Path, tmp_path: Path) -> None:
        refused = run(installed / "lungstage-train", "benchmark-selectors", cwd=tmp_path)
        assert (refused.returncode, refused.stdout) == (2, "")
        (line,) = refused.stderr.splitlines()
        assert line.endswith("pip install 'lungstage[training]'")
        phantom.write_study(tmp_path / "study")
        words = ("measure", "study", "--spec", "all", "--engine", "reference")
        refused = run(installed / "lungstage", *words, cwd=tmp_path)
        assert (refused.returncode, refused.stderr) == (3, "")
        assert "pip install 'lungstage[reference]'" in refused.stdout.splitlines()[0]

    def test_it_can_be_made_a_service(self, installed: Path, tmp_path: Path) -> None:
        """Here it is refused, because this installation is in /tmp, which a service cannot see."""
        refused = run(installed / "lungstage", "install-service", "--dry-run", cwd=tmp_path)
        assert refused.returncode == 2
        assert "The service cannot see" in refused.stderr
        assert 'bundle = "lung1-stage"' in done(installed / "lungstage", "settings", "--template", cwd=tmp_path)


def test_installed_it_is_the_only_name_and_it_works(wheel: Path, tmp_path: Path) -> None:
    """With only the libraries that it needs, without an editable installation, and outside of any checkout."""
    target = tmp_path / "site"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile")
    done(*pip, "--no-index", "--no-deps", "--target", target, wheel)
    libraries = sysconfig.get_path("purelib")
    program = f"""
import sys
sys.path += [{str(target)!r}, {libraries!r}]
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
import lungstage
assert Path(lungstage.__file__).parent == Path({str(target)!r}) / "lungstage"
assert not [name for name in {TOPS!r} if find_spec(name)]
from lungstage.appliance.radiomics import _kernels
from lungstage.appliance.staging import phantom
phantom.write_study(Path("study"))
measured = lungstage.measure("study", "all")
assert len(measured.features) == 106 and all(value == value for value in measured.features.values())
import lungstage.export.cli, lungstage.training.cli
assert Path(sys.modules[lungstage.GradientLossRFE.__module__].__file__).is_relative_to({str(target)!r})
print(lungstage.__version__, version("lungstage"))
"""
    # -I: no PYTHONPATH and no working folder; -S: no .pth file, which an editable installation uses.
    said = done(sys.executable, "-I", "-S", "-c", program, cwd=tmp_path)
    assert len(set(said.split())) == 1


def test_a_source_distribution_makes_the_same_wheel(checkout: Path, source: Path, wheel: Path, tmp_path: Path) -> None:
    """It contains each file once."""
    assert not {path.name for path in source.iterdir()} & {*TOPS, "models"}
    first, direct = (
        contents(wheel),
        contents(repaired(build(checkout, "wheel", tmp_path / "built"), tmp_path / "wheel")),
    )
    assert direct.keys() == first.keys()
    assert [name for name in first if direct[name] != first[name] and not name.endswith((".so", "/RECORD"))] == []
