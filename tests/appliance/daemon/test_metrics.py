"""A scrape over the loopback interface reads what happened, and by default there is no socket."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lungstage.appliance.contract.errors import Reason, ReasonCode, Unavailable
from lungstage.appliance.daemon import prometheus
from lungstage.appliance.daemon.loop import Daemon
from lungstage.appliance.daemon.metrics import Meter
from lungstage.appliance.daemon.prometheus import PrometheusMeter, serving
from lungstage.appliance.daemon.start import _metering
from lungstage.appliance.model.bundle_files import read_files
from lungstage.appliance.state.claims import Claims
from lungstage.appliance.state.database import Database
from lungstage.appliance.state.ledger import Ledger
from lungstage.appliance.workers.messages import Setting
from lungstage.appliance.workers.process import Limits, WorkerProcess
from tests.conftest import ROOT
from tests.support.fake_steps import BUNDLE, SECRET
from tests.support.seconds import PATIENCE, until
from tests.support.simulated import House, put_study
from tests.system.test_run import ENVIRONMENT, RUN

MISSING = Reason(ReasonCode.SLICES_MISSING, f"{SECRET}: 2 slices are missing.")
UID = re.compile(r"\d+\.\d+\.\d+")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def samples(text: str) -> dict[str, float]:
    """Each sample by its name and label values, read by Prometheus' own parser."""
    return {
        " ".join(
            [sample.name, *(value for _, value in sorted(sample.labels.items(), reverse=True) if value)]
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Metered(House):
    """A daemon in simulated time whose metrics can be scraped."""

    port: int

    def start(self) -> None:
        super().start()
        meter = PrometheusMeter(self.state)
        self.registry = meter.registry
        wake: Any = self.wake
        self.daemon = Daemon(
            self.settings, self.bundle.digest, self.steps.steps(), self.database, wake, clock=self.wake, meter=meter
        )

    def page(self) -> str:
        return page_of(self.registry)


def page_of(registry: CollectorRegistry) -> str:
    """What a scrape gets, but without a port: to close a port takes half a second."""
    return generate_latest(registry).decode()


@pytest.fixture
def house(tmp_path: Path) -> Metered:
    return Metered(tmp_path)


@pytest.fixture
def served(house: Metered) -> Iterator[Metered]:
    """A daemon whose metrics can be scraped over its port."""
    house.port = free_port()
    with serving(house.registry, house.port):
        yield house


def test_what_happened_is_what_is_scraped(served: Metered) -> None:
    house = served
    before = samples(scrape(house.port))
    assert before["lungstage_studies_total delivered"] == 0
    assert before["lungstage_jobs held"] == 0
    assert before["lungstage_oldest_waiting_seconds"] == 0
    put_study(house.inbox / "a", "1.5")
    put_study(house.inbox / "b", "1.6", 5, "refuse")
    put_study(house.inbox / "c", "1.7")
    (house.inbox / "c" / "1.7-2.dcm").unlink()
    (house.inbox / "junk").write_text("junk")
    house.run(20)
    text = scrape(house.port)
    found = samples(text)
    assert found["lungstage_studies_total delivered"] == 1
    assert found["lungstage_studies_total refused roi_empty"] == 1
    assert found["lungstage_studies_total held slices_missing"] == 1
    assert {name.split()[1]: value for name, value in found.items() if name.startswith("lungstage_jobs ")} == {
        "waiting": 0, "ready": 0, "claimed": 0, "report_ready": 0, "delivered": 1, "held": 1, "refused": 1
    }  # fmt: skip
    assert found["lungstage_inbox_files"] == 18
    assert found["lungstage_inbox_scan_seconds"] >= 0
    assert abs(found["lungstage_heartbeat_timestamp_seconds"] - time.time()) < 60
    assert found["lungstage_oldest_waiting_seconds"] > 0
    assert found["lungstage_ledger_available"] == 1
    assert found["lungstage_outbox_replaced"] == 0
    assert found[f"lungstage_bundle_info {BUNDLE.digest}"] == 1
    assert not UID.search(re.sub(r'version="[^"]*"', "", text)), "a label or a help text contains a UID"
    assert SECRET not in text


def promtool(*arguments: object, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own tool."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed")
    return subprocess.run(["promtool", *map(str, arguments)], input=given, capture_output=True, text=True, check=False)


def test_prometheus_own_linter_minds_nothing_on_the_page(house: Metered) -> None:
    put_study(house.inbox)
    house.run(20)
    page = house.page()
    linted = promtool("check", "metrics", given=page)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    assert promtool("check", "metrics", given=page.replace("# HELP", "# WHAT")).returncode != 0


ALARMS = {  # the values scraped every minute -> the alert that they raise
    'lungstage_heartbeat_timestamp_seconds: "0x30"': "LungstageSilent",
    'something_else: "1x30"': "LungstageSilent",
    'lungstage_oldest_waiting_seconds: "0+300x30"': "LungstageWaits",
    'lungstage_jobs{state="report_ready"}: "1x30"': "LungstageNotDelivering",
    'lungstage_studies_total{state="refused",reason="internal_error"}: "0x10 1x20"': "LungstageDefect",
    'lungstage_ledger_available: "0x30"': "LungstageLedger",
    'lungstage_outbox_replaced: "0x20 1x10"': "LungstageOutbox",
    'lungstage_canary_well: "1x20 0x10"': "LungstageCanary",
}
QUIET = [
    'lungstage_heartbeat_timestamp_seconds: "0+60x30"',
    'lungstage_oldest_waiting_seconds: "0+100x30"',
    'lungstage_jobs{state="report_ready"}: "1x9 0x21"',
    'lungstage_jobs{state="ready"}: "9x30"',
    'lungstage_studies_total{state="refused",reason="roi_empty"}: "0+1x30"',
    'lungstage_ledger_available: "1x30"',
    'lungstage_outbox_replaced: "0x30"',
    'lungstage_canary_well: "1x30"',
]


def test_the_rules_of_the_documentation_raise_their_alerts_and_no_others(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    match = re.search(r"```yaml\n(groups:.*?)```", page, re.DOTALL)
    assert match is not None
    (tmp_path / "rules.yml").write_text(match.group(1))
    checked = promtool("check", "rules", tmp_path / "rules.yml")
    assert checked.returncode == 0, checked.stderr
    names = re.findall(r"alert: (\w+)", match.group(1))
    assert {*ALARMS.values()} == {*names}
    cases = [(QUIET, "")]
    for raising, alert in ALARMS.items():
        beside = [] if alert == "LungstageSilent" else [QUIET[0]]
        cases.append(([raising, *beside], alert))
    tests = ["rule_files: [rules.yml]", "evaluation_interval: 1m", "tests:"]
    for series, raised in cases:
        tests.append("  - interval: 1m\n    input_series:")
        for one in series:
            name, _, values = one.rpartition(": ")
            tests.append(f"      - {{series: '{name}', values: {values}}}")
        tests.append("    alert_rule_test:")
        for name in names:
            expected = "" if name != raised else f"{{exp_labels: {_labels(series[0])}}}"
            tests.append(f"      - {{eval_time: 30m, alertname: {name}, exp_alerts: [{expected}]}}")
    (tmp_path / "tests.yml").write_text("\n".join(tests))
    tested = promtool("test", "rules", tmp_path / "tests.yml")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    broken = match.group(1).replace("> 3600", "> 36000")
    (tmp_path / "rules.yml").write_text(broken)
    assert promtool("test", "rules", tmp_path / "tests.yml").returncode != 0


def _labels(series: str) -> str:
    found = re.findall(r'(\w+)="(\w+)"', series.split(":")[0])
    return "{" + ", ".join(f"{name}: {value}" for name, value in found) + "}"


def test_an_outbox_in_place_of_another_is_told(house: Metered) -> None:
    house.run(1)
    house.outbox.rename(house.root / "elsewhere")
    house.outbox.mkdir()
    house.run(5)
    assert samples(house.page())["lungstage_outbox_replaced"] == 1


def test_a_case_that_stays_held_is_counted_once(house: Metered) -> None:
    put_study(house.inbox)
    (house.inbox / "1.5-2.dcm").unlink()
    house.run(10)
    for _ in range(3):
        house.daemon._begin_anew = True
        house.run(10)
    assert samples(house.page())["lungstage_studies_total held slices_missing"] == 1


def test_a_canary_is_told_of_but_is_no_study(tmp_path: Path) -> None:
    def away() -> None:
        raise OSError(errno.EIO, "the disk is away")

    house = Metered(tmp_path, canary_seconds=60.0, canary_patience_seconds=20.0)
    house.run(30)
    found = samples(house.page())
    assert found["lungstage_canary_well"] == 1
    assert found["lungstage_studies_total delivered"] == found["lungstage_jobs delivered"] == 0
    house.steps.during_stage = away
    house.run(120)
    assert samples(house.page())["lungstage_canary_well"] == 0


def test_seconds_go_into_the_histogram_by_step(tmp_path: Path) -> None:
    meter = PrometheusMeter(tmp_path)
    with Database(tmp_path / "ledger.sqlite") as database:
        ledger = Ledger(database, moved=meter.moved)
        for n, seconds in enumerate((0.03, 0.2)):
            job = ledger.open_job(f"1.{n}", "1.2", None, "1")
            ledger.ready(job.id, content="c", fingerprint=f"f{n}", bundle_digest="b")
            Claims(ledger).claim(timedelta(hours=1))
            outcome = {"seconds": {"scan": None, "radiomics": seconds, "total": 10 * seconds}}
            Claims(ledger).report_ready(job.id, outcome, "2.25.1", "2.25.2")
            Claims(ledger).delivered(job.id, Path("SR.dcm"))
    found = samples(page_of(meter.registry))
    assert found["lungstage_step_seconds_count radiomics"] == 2
    assert found["lungstage_step_seconds_sum radiomics"] == pytest.approx(0.23)
    assert found["lungstage_step_seconds_bucket radiomics 0.05"] == 1
    assert found["lungstage_step_seconds_bucket total 2.5"] == 2
    assert "lungstage_step_seconds_count scan" not in found


def test_the_oldest_wait_is_told_in_seconds(tmp_path: Path) -> None:
    with Database(tmp_path / "ledger.sqlite") as database:
        then = datetime.now(UTC) - timedelta(minutes=30)
        ledger = Ledger(database, now=lambda: then)
        ledger.wait(ledger.open_job("1", "1.2", None, "1").id, MISSING, content="c")
        found = samples(page_of(PrometheusMeter(tmp_path).registry))
    assert found["lungstage_oldest_waiting_seconds"] == pytest.approx(1800, abs=30)


def test_a_ledger_that_cannot_be_read_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    found = samples(page_of(PrometheusMeter(tmp_path / "absent").registry))
    assert found["lungstage_ledger_available"] == 0
    assert not [name for name in found if name.startswith("lungstage_jobs")]


def test_a_defect_of_ours_is_told_without_its_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise ValueError(SECRET)

    monkeypatch.setattr(prometheus.Jobs, "counts", fail)
    caplog.set_level("DEBUG", logger="lungstage")
    Database(tmp_path / "ledger.sqlite").close()
    port = free_port()
    with serving(PrometheusMeter(tmp_path).registry, port):
        found = samples(scrape(port))
    assert found["lungstage_ledger_available"] == 0
    assert found["lungstage_studies_total delivered"] == 0, "all other metrics are still there"
    assert [record.msg for record in caplog.records] == ["metrics_defect"]
    assert SECRET not in str([record.__dict__ for record in caplog.records]) + capfd.readouterr().err


def test_a_client_that_hangs_up_or_says_nothing_disturbs_nobody(
    served: Metered, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert prometheus._Handler.timeout <= 10
    with socket.create_connection(("127.0.0.1", served.port)) as one:
        one.sendall(b"GET /metrics HTTP/1.0\r\n")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing resets the connection
    with socket.create_connection(("127.0.0.1", served.port)):
        started = time.monotonic()
        assert scrape(served.port)
        assert time.monotonic() - started < prometheus._Handler.timeout, "it waited for the silent client"
    monkeypatch.setattr(prometheus._Handler, "timeout", 0.2)
    threads = threading.active_count()
    with socket.create_connection(("127.0.0.1", served.port)) as silent:
        assert silent.recv(1) == b"", "the connection is closed"
    until(lambda: threading.active_count() <= threads)
    assert capfd.readouterr().err == ""


def test_no_name_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a name server is asked")

    for name in ("getfqdn", "gethostbyaddr", "gethostbyname", "getaddrinfo", "getnameinfo"):
        monkeypatch.setattr(socket, name, fail)
    with serving(PrometheusMeter(tmp_path).registry, 0):
        pass


def test_only_the_loopback_interface_answers(served: Metered) -> None:
    address = Path("/proc/net/tcp").read_text()
    listening = {line.split()[1] for line in address.splitlines()[1:] if line.split()[3] == "0A"}
    assert f"0100007F:{served.port:04X}" in listening
    assert f"00000000:{served.port:04X}" not in listening


def test_none_is_wanted_by_default(tmp_path: Path) -> None:
    house = House(tmp_path)
    with _metering(house.settings) as meter:
        assert type(meter) is Meter
    program = "import sys, lungstage.appliance.daemon.loop; print([n for n in sys.modules if 'prometheus' in n])"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert told.strip() == "[]"


def test_a_port_that_is_taken_keeps_the_daemon_from_starting(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        house = House(tmp_path, metrics_port=port)
        with pytest.raises(Unavailable, match=f"Port {port} of 127.0.0.1"), _metering(house.settings):
            raise AssertionError("it must not start")
        command = [*RUN, "run", "--inbox", house.inbox, "--outbox", tmp_path / "o", "--bundle", tmp_path]
        done = subprocess.run(
            list(map(str, command)), env=ENVIRONMENT | {"LUNGSTAGE_METRICS_PORT": str(port)},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "")
    assert "cannot be opened for metrics: Address already in use." in done.stderr
    with _metering(house.settings):
        scrape(port)
    with socket.socket() as again:  # the port is free again
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def test_a_process_that_is_started_anew_is_counted(tmp_path: Path, shipped_bundle: Path) -> None:
    meter = PrometheusMeter(tmp_path)
    process = WorkerProcess(Setting(read_files(shipped_bundle), "compiled", tmp_path), Limits(), meter.process_started)

    def count() -> float | None:
        return meter.registry.get_sample_value("lungstage_processes_started_total")

    try:
        for _ in range(3):
            process.start()
        assert count() == 1
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        until(lambda: process.start() or count() == 2)
    finally:
        process.end()


@contextlib.contextmanager
def traced(root: Path, bundle: Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Run the real daemon under strace, from its ``ready`` to its end."""
    command = ["strace", "-f", "-qq", "-o", root / "trace", "-e", "trace=socket,connect,bind,listen,sendto"]
    command += [*RUN, "run", "--create", "--inbox", root / "inbox", "--outbox", root / "outbox", "--bundle", bundle]
    with subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=ENVIRONMENT | {f"LUNGSTAGE_{name.upper()}": value for name, value in settings.items()},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def network_calls(trace: Path) -> list[str]:
    lines = [line for line in trace.read_text().splitlines() if re.search(r"\b(socket|connect|bind|listen)\(", line)]
    return [line for line in lines if "AF_UNIX" not in line]


@pytest.mark.slow
def test_the_daemon_opens_the_one_port_that_is_asked_for(tmp_path: Path, shipped_bundle: Path) -> None:
    """``tests/system/test_privacy.py`` checks that it opens no port by default."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    port = free_port()
    with traced(tmp_path, shipped_bundle, metrics_port=str(port)):
        found = samples(scrape(port))
    assert found["lungstage_processes_started_total"] == 2
    digest = next(name.split()[1] for name in found if name.startswith("lungstage_bundle_info"))
    assert len(digest) == 64
    calls = network_calls(tmp_path / "trace")
    assert [re.sub(r".*?(\w+)\(.*", r"\1", call) for call in calls] == ["socket", "bind", "listen"]
    assert f'sin_port=htons({port}), sin_addr=inet_addr("127.0.0.1")' in calls[1]
