"""What is installed: one package called ``lungstage``, whole, from a checkout as from a source distribution."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]  # it is built twice

TOPS = ("appliance", "export", "training")
DATA = {
    "lungstage/py.typed",
    "lungstage/appliance/radiomics/_kernels.pyi",
    "lungstage/training/cohorts/lung1.toml",
    "lungstage/training/reporting/report.html.j2",
}
KERNELS = f"lungstage/appliance/radiomics/_kernels{sysconfig.get_config_var('EXT_SUFFIX')}"
_SDIST = "import sys, setuptools.build_meta as backend; backend.build_sdist(sys.argv[1])"


def wheel_of(tree: Path, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", into, tree], check=True, capture_output=True)
    (wheel,) = into.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources as they are checked out, links and all, so that building leaves nothing in ours."""
    tree = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("lungstage", "models", *TOPS):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    return tree


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(checkout, tmp_path_factory.mktemp("wheel"))


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
    assert {name for name in found if name.startswith("lungstage/")} == code | DATA | {KERNELS}


def test_installed_it_is_the_only_name_and_it_works(wheel: Path, tmp_path: Path) -> None:
    """Beside the libraries that it needs, without what an editable installation adds, far from any checkout."""
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", target, wheel], check=True, capture_output=True)
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
    # -I: no PYTHONPATH and no working folder; -S: no .pth file, which is how an editable installation gets in.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1


def test_a_source_distribution_makes_the_same_wheel(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    """It holds each file once and no link, so it can be unpacked anywhere."""
    subprocess.run([sys.executable, "-c", _SDIST, tmp_path], cwd=checkout, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        archive.extractall(tmp_path / "unpacked", filter="data")
    (tree,) = (tmp_path / "unpacked").iterdir()
    assert not {path.name for path in tree.iterdir()} & {*TOPS}
    again, first = contents(wheel_of(tree, tmp_path / "wheel")), contents(wheel)
    assert again.keys() == first.keys()
    assert [name for name in first if again[name] != first[name] and not name.endswith((".so", "/RECORD"))] == []
