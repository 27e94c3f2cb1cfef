"""The service of an installation: what the unit names, what is refused, and that uninstalling deletes no data."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from lungstage.appliance.cli.main import app
from lungstage.appliance.config.settings import load_settings
from lungstage.appliance.gateway.settings import load_gateway
from lungstage.appliance.service import installation, unit
from lungstage.appliance.service.unit import Places, ServiceError

PROGRAM, PYTHON = Path("/opt/lungstage/bin/lungstage"), Path("/usr/bin/python3.11")
PLACES = Places(PROGRAM, PYTHON, installation.CONFIG, Path("/srv/i"), Path("/srv/o"), unit.STATE, "lungstage")
UNIT = "etc/systemd/system/lungstage.service"
PAGE = "etc/systemd/system/lungstage-page.service"
GATEWAY = "etc/systemd/system/lungstage-gateway.service"
CONFIG = "etc/lungstage/lungstage.toml"


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate an installation from a wheel in /opt."""
    monkeypatch.setattr(installation, "this_installation", lambda: (PROGRAM, PYTHON))


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [*map(str, words)])


def lines_of(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_the_unit_differs_from_the_template_in_what_it_names_and_nothing_else() -> None:
    template = Path(unit.__file__).with_name(unit.NAME).read_text(encoding="utf-8")
    named = replace(
        PLACES,
        program=Path("/opt/a b/bin/lungstage"),
        config=Path("/etc/l/l.toml"),
        state=Path("/data/state"),
        user="ct",
    )
    before, after = lines_of(template), lines_of(unit.render(named))
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "ExecStart": '"/opt/a b/bin/lungstage" run --config /etc/l/l.toml',
        "RequiresMountsFor": "/srv/i /srv/o",
        "ReadWritePaths": "/srv/o /data/state",
        "User": "ct",
        "Group": "ct",
    }
    assert before.keys() == after.keys()


def test_the_page_s_unit_runs_the_page_and_writes_to_the_state_folder_and_contours_into_the_inbox() -> None:
    template = Path(unit.__file__).with_name(unit.PAGE).read_text(encoding="utf-8")
    before = lines_of(template)
    after = lines_of(unit.render(replace(PLACES, state=Path("/data/state"), user="ct"), unit.PAGE))
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "ReadWritePaths": "-/srv/i /data/state", "User": "ct", "Group": "ct",
    }  # fmt: skip
    assert before["ExecStart"] == "/opt/lungstage/bin/lungstage page --config /etc/lungstage/lungstage.toml"
    assert before["ReadWritePaths"] == f"-/srv/lungstage/inbox {unit.STATE}"
    assert lines_of(unit.render(replace(PLACES, inbox=Path("/srv/lungstage/inbox")), unit.PAGE)) == before


@given(st.text(min_size=1, max_size=20).filter(lambda name: "/" not in name and name not in (".", "..")))
def test_a_name_stands_in_the_unit_as_one_word_or_is_refused(name: str) -> None:
    try:
        text = unit.render(replace(PLACES, outbox=Path("/srv", name)))
    except ServiceError:
        return
    words = lines_of(text)["ReadWritePaths"]
    assert words.strip('"') == f"/srv/{name}"
    assert words.startswith('"') == (" " in name)
    assert not set(name) & set("\n\t%$\\'\"")


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("program", "/home/me/venv/bin/lungstage"), ("python", "/root/.local/bin/python3.12"),
        ("outbox", "/tmp/outbox"), ("inbox", "/run/user/0/inbox"), ("state", "/var/tmp/state"),
    ],
)  # fmt: skip
def test_what_the_service_could_not_see_is_refused(field: str, path: str) -> None:
    with pytest.raises(ServiceError, match=f"^The service cannot see {path}"):
        unit.render(replace(PLACES, **{field: Path(path)}))


def test_a_user_by_another_name_is_refused() -> None:
    with pytest.raises(ServiceError, match="not a valid name of a system user"):
        unit.render(replace(PLACES, user="ct\nUser=root"))


def test_it_is_installed_once_and_again_without_a_change(tmp_path: Path) -> None:
    done = call("install-service", "--root", tmp_path)
    assert done.exit_code == 0, done.output
    text, settings = (tmp_path / UNIT).read_text(), (tmp_path / CONFIG).read_text()
    assert lines_of(text)["ExecStart"] == "/opt/lungstage/bin/lungstage run --config /etc/lungstage/lungstage.toml"
    folders = load_settings(tmp_path / CONFIG, environment={})
    for folder, mode in ((folders.inbox, 0o2770), (folders.outbox, 0o2770), (folders.state, 0o700)):
        assert (tmp_path / folder.relative_to("/")).stat().st_mode & 0o7777 == mode
    assert (tmp_path / UNIT).stat().st_mode & 0o777 == 0o644
    study = tmp_path / "srv/lungstage/inbox/study.dcm"
    study.write_bytes(b"a study")
    (tmp_path / CONFIG).write_text(settings + "\n# the site's own\n")

    again = call("install-service", "--root", tmp_path)
    assert again.stdout.splitlines()[0] == "write /etc/systemd/system/lungstage.service", "only the unit changes"
    assert (tmp_path / UNIT).read_text() == text
    assert (tmp_path / CONFIG).read_text().endswith("# the site's own\n")
    assert study.read_bytes() == b"a study"


def test_the_page_is_a_service_where_it_is_asked_for_and_then_stays_one(tmp_path: Path) -> None:
    assert call("install-service", "--root", tmp_path).exit_code == 0
    assert not (tmp_path / PAGE).exists()
    done = call("install-service", "--root", tmp_path, "--page")
    assert "systemctl enable --now lungstage-page" in done.stdout
    text = (tmp_path / PAGE).read_text()
    (tmp_path / PAGE).write_text(text.replace("page --config", "page --of-another-release"))
    assert call("install-service", "--root", tmp_path).exit_code == 0
    assert (tmp_path / PAGE).read_text() == text
    assert call("uninstall-service", "--root", tmp_path).exit_code == 0
    assert not [*(tmp_path / PAGE).parent.iterdir()]


def test_the_gateway_s_unit_runs_the_gateway_and_writes_to_the_inbox() -> None:
    template = Path(unit.__file__).with_name(unit.GATEWAY).read_text(encoding="utf-8")
    before = lines_of(template)
    after = lines_of(unit.render(replace(PLACES, state=Path("/data/state"), user="ct"), unit.GATEWAY))
    assert {key: value for key, value in after.items() if before[key] != value} == {
        "RequiresMountsFor": "/srv/i /srv/o", "ReadWritePaths": "/srv/i /data/state", "User": "ct", "Group": "ct",
    }  # fmt: skip
    assert before["ExecStart"] == "/opt/lungstage/bin/lungstage gateway --config /etc/lungstage/gateway.toml"


def test_the_gateway_is_a_service_where_it_is_asked_for_with_settings_that_can_be_used(tmp_path: Path) -> None:
    pytest.importorskip("pynetdicom", reason="the extra gateway is not installed")
    done = call("install-service", "--root", tmp_path, "--gateway")
    assert done.exit_code == 0, done.output
    assert "systemctl enable --now lungstage-gateway" in done.stdout
    config = tmp_path / "etc/lungstage/gateway.toml"
    settings = load_gateway(config)
    assert settings.daemons == (unit.STATE,)
    assert settings.state == unit.GATEWAY_STATE
    config.write_text(config.read_text() + "# the site's own\n")
    assert call("install-service", "--root", tmp_path).exit_code == 0
    assert config.read_text().endswith("# the site's own\n")
    assert (tmp_path / GATEWAY).exists(), "the gateway stays a service"
    assert call("uninstall-service", "--root", tmp_path).exit_code == 0
    assert not (tmp_path / GATEWAY).exists()


def test_on_the_host_the_page_is_stopped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_is_there", lambda root, name: True)
    monkeypatch.setattr(installation, "_read", lambda path: unit.render(PLACES))
    steps = [str(step) for step in installation.to_uninstall()]
    assert steps == [
        "systemctl disable --now lungstage-gateway.service", f"remove /{GATEWAY}",
        "systemctl disable --now lungstage-page.service", f"remove /{PAGE}",
        "systemctl disable --now lungstage.service", f"remove /{UNIT}", "systemctl daemon-reload",
    ]  # fmt: skip


def test_it_goes_by_the_settings_that_are_there(tmp_path: Path) -> None:
    config = tmp_path / "etc/ct.toml"
    config.parent.mkdir()
    config.write_text('inbox = "/data/in"\noutbox = "/data/out"\nbundle = "lung1-stage"\n')
    assert call("install-service", "--root", tmp_path, "--config", "/etc/ct.toml", "--user", "ct").exit_code == 0
    said = lines_of((tmp_path / UNIT).read_text())
    assert (said["User"], said["RequiresMountsFor"]) == ("ct", "/data/in /data/out")
    assert said["ReadWritePaths"] == "/data/out /data/.lungstage-out", "the outbox and the default state folder for it"
    assert not (tmp_path / CONFIG).exists()


def test_settings_that_cannot_be_used_stop_it_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "etc/lungstage").mkdir(parents=True)
    (tmp_path / CONFIG).write_text('inbx = "/data/in"\n')
    done = call("install-service", "--root", tmp_path)
    assert done.exit_code != 0
    assert "did you mean 'inbox'" in str(done.exception)
    assert not (tmp_path / UNIT).exists()


def test_a_dry_run_says_everything_and_does_nothing(tmp_path: Path) -> None:
    done = call("install-service", "--root", tmp_path, "--dry-run")
    assert done.exit_code == 0
    assert "make /srv/lungstage/outbox for lungstage, mode 2770\n" in done.stdout
    assert "\nExecStart=/opt/lungstage/bin/lungstage run" in done.stdout
    assert not [*tmp_path.iterdir()]


def test_on_the_host_user_and_systemd_come_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_known", lambda user: False)
    steps = installation.to_install(PLACES)
    assert str(steps[0]).startswith("useradd --system")
    assert str(steps[0]).endswith(" lungstage")
    assert str(steps[-1]) == "systemctl daemon-reload"
    monkeypatch.setattr(installation, "_known", lambda user: True)
    assert not [step for step in installation.to_install(PLACES) if str(step).startswith("useradd")]


@pytest.mark.parametrize("command", ["install-service", "uninstall-service"])
class TestHost:
    """Without root or systemd the command does nothing."""

    def test_without_systemd(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "is_dir", lambda self: False)
        done = call(command)
        assert "systemd is not running on this machine" in str(done.exception)

    def test_without_root(self, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "is_dir", lambda self: True)
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        done = call(command)
        assert "Only root may change the services" in str(done.exception)


def test_uninstalled_it_leaves_all_but_the_unit(tmp_path: Path) -> None:
    call("install-service", "--root", tmp_path)
    (tmp_path / "srv/lungstage/outbox/SR-1.dcm").write_bytes(b"a report")
    before = set(tmp_path.rglob("*"))
    assert call("uninstall-service", "--root", tmp_path, "--dry-run").stdout.startswith(f"remove /{UNIT}\n")
    assert set(tmp_path.rglob("*")) == before
    done = call("uninstall-service", "--root", tmp_path)
    assert done.exit_code == 0
    assert before - set(tmp_path.rglob("*")) == {tmp_path / UNIT}
    assert call("uninstall-service", "--root", tmp_path).stdout == "There is no service of lungstage to remove.\n"


@pytest.mark.parametrize("command", ["install-service", "uninstall-service"])
def test_a_unit_of_somebody_elses_is_left(command: str, tmp_path: Path) -> None:
    (tmp_path / UNIT).parent.mkdir(parents=True)
    (tmp_path / UNIT).symlink_to("/dev/null")  # as `systemctl mask` does
    done = call(command, "--root", tmp_path)
    assert isinstance(done.exception, ServiceError)
    assert "lungstage did not write" in str(done.exception)
    assert os.readlink(tmp_path / UNIT) == "/dev/null"


def test_systemd_takes_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = shutil.which("true")  # systemd checks that the program exists
    assert program is not None
    monkeypatch.setattr(installation, "this_installation", lambda: (Path(program), PYTHON))
    assert call("install-service", "--page", "--root", tmp_path).exit_code == 0
    units = [tmp_path / UNIT, tmp_path / PAGE]
    command = ["systemd-analyze", "--no-pager", "verify", "--man=no", "--recursive-errors=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd is older than 250")
    assert (done.returncode, done.stderr) == (0, "")


def test_without_the_command_beside_it_the_installation_is_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(installation.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(installation.Unavailable, match="is not installed"):
        installation.this_installation()
