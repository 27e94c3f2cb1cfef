"""The container's files: the privileges that they promise, and that they fit the code.

The build of a working image is checked by hand; docs/container.md says how.
"""

import json
import re
import tomllib
from typing import Any

import pytest
import typer.main
from ruamel.yaml import YAML

from lungstage.appliance import __version__
from lungstage.appliance.cli.main import app
from tests.conftest import ROOT


def _instructions() -> list[tuple[str, str]]:
    """Return each instruction of the Dockerfile with its arguments, lines joined and comments left out."""
    text = "".join(line for line in (ROOT / "Dockerfile").open(encoding="utf-8") if not line.lstrip().startswith("#"))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(name.upper(), rest.strip()) for name, _, rest in (line.strip().partition(" ") for line in lines)]


INSTRUCTIONS = _instructions()
LAST_FROM = max(i for i, (name, _) in enumerate(INSTRUCTIONS) if name == "FROM")
RUNTIME = INSTRUCTIONS[LAST_FROM:]


def _runtime(name: str) -> list[str]:
    return [rest for instruction, rest in RUNTIME if instruction == name]


def _health_check() -> list[str]:
    """Return the Dockerfile's health check as the words of a command."""
    (check,) = _runtime("HEALTHCHECK")
    words: list[str] = json.loads(check[check.index("CMD") + len("CMD") :])
    return [" ".join(word.split()) for word in words]


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return dict(YAML(typ="safe").load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"])


@pytest.fixture(scope="module")
def service(services: dict[str, Any]) -> dict[str, Any]:
    return dict(services["lungstage"])


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


class TestDockerfile:
    def test_stages_share_one_base_that_can_be_chosen(self) -> None:
        froms = [rest.split()[0] for name, rest in INSTRUCTIONS if name == "FROM"]
        assert froms == ["${BASE_IMAGE}", "python", "scratch", "python", "python"]
        first, default = INSTRUCTIONS[0]
        assert first == "ARG"
        assert re.fullmatch(r"BASE_IMAGE=[a-z]+:[\w.-]+", default), "the default must not name a registry"

    def test_runtime_takes_nothing_but_the_built_environment(self) -> None:
        assert _runtime("COPY") == ["--from=builder /opt/lungstage /opt/lungstage"]
        assert not _runtime("ADD")
        assert not [run for run in _runtime("RUN") if re.search(r"\b(apt-get|pip|gcc)\b", run)]

    def test_training_and_torch_stay_out(self, project: dict[str, Any]) -> None:
        """The wheel contains the training code, so the image removes it; its libraries are not installed."""
        installed = next(rest for name, rest in INSTRUCTIONS if name == "RUN" and "/opt/lungstage/bin/python" in rest)
        removed = installed.split("rm -r ")[1].split(" && ")[0].split()
        assert {path.rpartition("/")[2] for path in removed} == {"lungstage-*", "training", "export"}
        code = " ".join(rest for _, rest in INSTRUCTIONS)
        assert not re.search(r"\btorch\b|radiomics\b(?!-based)|\[(training|dev|reference)", code)
        assert not [name for name in project["dependencies"] if re.match(r"(torch|pandas|scikit-learn|pyradio)", name)]

    def test_the_wheel_is_what_is_installed_and_a_finished_one_can_stand_in(self) -> None:
        """A build context named ``wheel`` replaces the build stage of this name, so that no compiler is needed."""
        stages = [rest.split(" AS ")[1] for name, rest in INSTRUCTIONS if name == "FROM"]
        assert stages == ["python", "compiler", "wheel", "builder", "appliance"]
        of_stage = INSTRUCTIONS[[rest for _, rest in INSTRUCTIONS].index("python AS builder") : LAST_FROM]
        assert [rest for name, rest in of_stage if name == "COPY"] == [
            "constraints.txt /src/",
            "--from=wheel /*.whl /wheel/",
        ]
        assert not [rest for name, rest in of_stage if re.search(r"\bgcc\b", rest)]

    def test_it_holds_its_own_bill_of_materials(self) -> None:
        (written,) = [rest for _, rest in INSTRUCTIONS if "cyclonedx-py environment" in rest]
        assert written.index("install /wheel/*.whl") < written.index("--output-file /opt/lungstage/sbom.cdx.json")
        assert "/opt/lungstage/sbom.cdx.json" in (ROOT / "Makefile").read_text(encoding="utf-8")

    def test_build_context_holds_what_is_copied_and_no_more(self) -> None:
        rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
        rules = [rule for rule in rules if rule and not rule.startswith("#")]
        assert rules[0] == "*"
        copies = [rest.split() for name, rest in INSTRUCTIONS[:LAST_FROM] if name == "COPY"]
        sources = {source for words in copies if not words[0].startswith("--from") for source in words[:-1]}
        assert {rule[1:] for rule in rules if rule.startswith("!")} == sources

    def test_user_is_fixed_and_not_root(self) -> None:
        assert _runtime("USER") == ["10001:10001"]
        assert "--uid 10001 --gid 10001" in " ".join(_runtime("RUN"))

    def test_daemon_gets_sigterm_itself(self) -> None:
        assert json.loads(_runtime("ENTRYPOINT")[0]) == ["lungstage"]
        assert isinstance(json.loads(_runtime("CMD")[0]), list)
        assert _runtime("STOPSIGNAL") == ["SIGTERM"]

    def test_command_is_one_that_the_appliance_has(self) -> None:
        command, *arguments = json.loads(_runtime("CMD")[0])
        parser = typer.main.get_command(app)
        context = parser.make_context("lungstage", [command], resilient_parsing=True)
        subcommand = parser.commands[command]  # type: ignore[attr-defined]
        given = subcommand.make_context(command, arguments, parent=context).params
        assert {name: str(given[name]) for name in ("inbox", "outbox", "state")} == {
            "inbox": "/inbox", "outbox": "/outbox", "state": "/state"
        }  # fmt: skip
        assert given["bundle"] == ROOT / "lungstage" / "models" / "lung1-stage", "the bundle is shipped under this name"
        assert json.loads(_runtime("VOLUME")[0]) == ["/inbox", "/outbox", "/state"]

    def test_secrets_are_mounted_never_copied(self) -> None:
        pip_runs = [rest for name, rest in INSTRUCTIONS if name == "RUN" and "/build/bin/pip" in rest]
        assert len(pip_runs) == 2
        for run in pip_runs:
            assert "--mount=type=secret,id=pip_conf,target=/etc/pip.conf" in run
            assert "--mount=type=secret,id=ca_bundle" in run

    def test_labels_name_version_and_purpose(self) -> None:
        (labels,) = _runtime("LABEL")
        assert "Research use only" in labels
        assert 'licenses="Apache-2.0 AND CC-BY-NC-3.0 AND BSD-2-Clause AND ISC AND MIT"' in labels
        assert f"VERSION={__version__}" in _runtime("ARG")

    def test_no_address_is_wired_in(self) -> None:
        for name in ("Dockerfile", "compose.yaml", ".dockerignore", ".hadolint.yaml"):
            assert "://" not in (ROOT / name).read_text(encoding="utf-8")


class TestCompose:
    def test_privileges_are_given_up(self, service: dict[str, Any]) -> None:
        assert service["network_mode"] == "none"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["user"] == _runtime("USER")[0]
        assert service["mem_limit"]
        assert service["pids_limit"]
        assert not {"privileged", "cap_add", "devices", "ports", "networks", "pid", "ipc"} & set(service)

    def test_only_volumes_and_tmp_can_be_written(self, service: dict[str, Any]) -> None:
        volumes = {volume["target"]: volume for volume in service["volumes"]}
        assert list(volumes) == json.loads(_runtime("VOLUME")[0])
        assert [target for target, volume in volumes.items() if volume.get("read_only")] == ["/inbox"]
        (tmpfs,) = service["tmpfs"]
        assert tmpfs.split(":")[0] == "/tmp"

    def test_it_stops_in_peace_and_comes_back(self, service: dict[str, Any]) -> None:
        assert service["init"] is True
        assert service["stop_grace_period"] == "2m"
        assert service["restart"] == "unless-stopped"

    @pytest.mark.parametrize("name", ["page", "gateway"])
    def test_what_listens_gives_up_the_same_privileges(
        self, name: str, service: dict[str, Any], services: dict[str, Any]
    ) -> None:
        listens = services[name]
        for key in ("init", "user", "read_only", "cap_drop", "security_opt", "restart"):
            assert listens[key] == service[key], key
        assert listens["mem_limit"]
        assert listens["pids_limit"]
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & set(listens)
        assert [v["target"] for v in listens["volumes"] if v["target"] == "/outbox" and v["read_only"]] == ["/outbox"]

    def test_the_page_cannot_slow_the_daemon(self, service: dict[str, Any], services: dict[str, Any]) -> None:
        usual = 1024
        assert services["page"]["cpu_shares"] <= service.get("cpu_shares", usual) / 10

    def test_image_bears_the_release(self, services: dict[str, Any]) -> None:
        assert {service["image"] for service in services.values()} == {f"lungstage:{__version__}"}

    def test_health_check_is_the_images_own(self, service: dict[str, Any]) -> None:
        check = service["healthcheck"]
        assert [" ".join(word.split()) for word in check["test"]] == ["CMD", *_health_check()]
        (image,) = _runtime("HEALTHCHECK")
        for option in ("interval", "timeout", "start_period", "retries"):
            assert f"--{option.replace('_', '-')}={check[option]} " in image


def test_the_health_check_is_the_appliances_own_command() -> None:
    assert _health_check() == ["lungstage", "health", "--state", "/state"]
