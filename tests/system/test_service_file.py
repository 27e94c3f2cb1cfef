"""The systemd unit: its restrictions are set, and its folders and memory are enough."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from lungstage.appliance.cli.main import app
from lungstage.appliance.config.explain import template
from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.doctor import host, machine
from lungstage.appliance.doctor.finding import Verdict
from tests.conftest import ROOT

UNIT = ROOT / "appliance" / "service" / "lungstage.service"
BYTES = {"g": 1024**3, "m": 1024**2, "k": 1024}


def in_bytes(size: str) -> int:
    return int(size[:-1]) * BYTES[size[-1].lower()]


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """Each key's values, in the order of their lines, as in systemd.syntax(7)."""
    values: dict[str, list[str]] = defaultdict(list)
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            values[key].append(value)
    return values


def environment(service: dict[str, list[str]]) -> dict[str, str]:
    return dict(word.split("=", 1) for line in service["Environment"] for word in line.split())


def fits(settings: dict[str, str], limit: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(machine, "memory_limit", lambda: limit)
    folders = {"inbox": Path("/i"), "outbox": Path("/o"), "bundle": Path("/b")}
    (finding,) = host.memory(load_settings(None, folders, settings))
    return finding.verdict is Verdict.OK


def test_it_runs_the_daemon_that_the_template_sets_up(service: dict[str, list[str]]) -> None:
    program, command, *arguments = service["ExecStart"][0].split()
    assert program.endswith("/bin/lungstage")
    parser = typer.main.get_command(app)
    context = parser.make_context("lungstage", [command], resilient_parsing=True)
    given = parser.commands[command].make_context(command, arguments, parent=context).params  # type: ignore[attr-defined]
    assert command == "run"
    assert {name for name, value in given.items() if value not in (None, (), False)} == {"config"}
    folders = tomllib.loads(template())
    assert service["RequiresMountsFor"] == [f"{folders['inbox']} {folders['outbox']}"]
    assert service["ReadWritePaths"] == [folders["outbox"]], "so the inbox cannot be written"
    assert [f"/var/lib/{name}" for name in service["StateDirectory"]] == [folders["state"]]
    assert service["StateDirectoryMode"] == ["0700"]


def test_its_processes_may_confine_themselves_further(service: dict[str, list[str]]) -> None:
    calls = {"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"}
    assert set(service["SystemCallFilter"][-1].split()) == calls, "the last line that names a call takes precedence"


def test_what_it_sets_are_settings(service: dict[str, list[str]]) -> None:
    ours = {name: value for name, value in environment(service).items() if name.startswith("LUNGSTAGE_")}
    folders = {"inbox": Path("/i"), "outbox": Path("/o"), "bundle": Path("/b")}
    settings = load_settings(None, folders, ours)
    for name, value in ours.items():
        assert str(getattr(settings, name.removeprefix("LUNGSTAGE_").lower())) == value


def test_all_processes_fit_into_the_memory_that_it_gives(
    service: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fits(environment(service), in_bytes(service["MemoryMax"][0]), monkeypatch)


def test_all_processes_fit_into_the_memory_of_the_container(monkeypatch: pytest.MonkeyPatch) -> None:
    compose = YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    container = compose["services"]["lungstage"]
    (tmpfs,) = container["tmpfs"]
    found = re.search(r"size=(\w+)", tmpfs)
    assert found is not None
    left = in_bytes(container["mem_limit"]) - in_bytes(found[1])  # files in a tmpfs use memory, too
    assert fits(container["environment"], left, monkeypatch)
    more = {**container["environment"], "LUNGSTAGE_WORK_MEMORY_MB": "4096"}
    assert not fits(more, left, monkeypatch), "the default would not fit"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("NoNewPrivileges", "yes"), ("CapabilityBoundingSet", ""), ("ProtectSystem", "strict"), ("ProtectHome", "yes"),
        ("PrivateNetwork", "yes"), ("IPAddressDeny", "any"), ("RestrictAddressFamilies", "none"),
        ("MemoryDenyWriteExecute", "yes"), ("LimitCORE", "0"), ("MemorySwapMax", "0"), ("KillMode", "mixed"),
        ("Restart", "on-failure"), ("RestartPreventExitStatus", "2 3"),
    ],
)  # fmt: skip
def test_it_is_closed(service: dict[str, list[str]], key: str, value: str) -> None:
    assert service[key] == [value]
    assert service["User"] not in ([], ["root"])


def for_here(template: Path, folder: Path) -> Path:
    """Write the unit with the path of this environment's program."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = folder / template.name
    program = str(Path(sys.executable).parent / "lungstage")
    unit.write_text(template.read_text(encoding="utf-8").replace("/opt/lungstage/bin/lungstage", program))
    return unit


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    return for_here(UNIT, tmp_path)


@pytest.mark.parametrize("name", ["lungstage-page.service", "lungstage-gateway.service"])
def test_what_listens_is_as_closed_but_for_its_ports(name: str, tmp_path: Path) -> None:
    page = for_here(UNIT.with_name(name), tmp_path)
    for command in (("verify", "--man=no", "--recursive-errors=no"), ("security", "--offline=yes", "--threshold=20")):
        done = analyze(*command, page)
        if "unrecognized option" in done.stderr:
            pytest.skip("this systemd is older than 250")
        assert done.returncode == 0, done.stdout + done.stderr

    def keys(unit: Path) -> set[str]:
        return {line for line in unit.read_text().splitlines() if "=" in line and not line.startswith("#")}

    opened = {line.partition("=")[0] for line in keys(UNIT) - keys(page)} - {"ExecStart", "Description"}
    assert opened <= {
        "PrivateNetwork", "RestrictAddressFamilies", "RequiresMountsFor", "ReadWritePaths", "MemoryMax", "TasksMax",
        "TimeoutStopSec", "Environment", "UMask", "StateDirectory", "SystemCallFilter",
    }  # fmt: skip


def test_the_page_cannot_slow_the_daemon(service: dict[str, list[str]]) -> None:
    page = UNIT.with_name("lungstage-page.service").read_text(encoding="utf-8").splitlines()
    usual = 100
    for weight in ("CPUWeight", "IOWeight"):
        (of_page,) = [int(line.partition("=")[2]) for line in page if line.startswith(f"{weight}=")]
        (of_daemon,) = service[weight] or [usual]
        assert of_page <= int(of_daemon) / 10


def analyze(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_knows_every_word_of_it(installed: Path) -> None:
    done = analyze("verify", "--man=no", "--recursive-errors=no", installed)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert (done.returncode, done.stderr) == (0, "")
    installed.write_text(installed.read_text().replace("PrivateTmp=yes", "PrivateTemp=yes"))
    assert "PrivateTemp" in analyze("verify", "--man=no", "--recursive-errors=no", installed).stderr


def test_systemd_rates_its_exposure_below_1_of_10(installed: Path) -> None:
    done = analyze("security", "--offline=yes", "--threshold=10", installed)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert done.returncode == 0, done.stdout
    installed.write_text(installed.read_text().replace("ProtectSystem=strict", "ProtectSystem=no"))
    installed.write_text(re.sub(r"^(SystemCallFilter|PrivateNetwork).*\n", "", installed.read_text(), flags=re.M))
    assert analyze("security", "--offline=yes", "--threshold=10", installed).returncode != 0


def test_what_opens_it_for_metrics_opens_the_loopback_interface_alone(installed: Path) -> None:
    text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```ini\n(.*?)```", text, flags=re.DOTALL)
    keys = {line.partition("=")[0] for line in lines.splitlines() if "=" in line}
    assert keys == {"PrivateNetwork", "IPAddressAllow", "RestrictAddressFamilies"}
    assert "IPAddressAllow=localhost\n" in lines
    folder = installed.with_name(f"{installed.name}.d")
    folder.mkdir()
    (folder / "metrics.conf").write_text(lines)
    done = analyze("verify", "--man=no", "--recursive-errors=no", installed)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert (done.returncode, done.stderr) == (0, "")
