"""A setting has one value, whichever way it is given; a fault is named with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lungstage.appliance.config.settings import Settings, SettingsError, default_state, load_settings, state_of
from lungstage.appliance.config.shipped import SHIPPED


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Any]:
    return {"inbox": tmp_path / "in", "outbox": tmp_path / "out", "bundle": tmp_path / "bundle"}


def test_command_line_outranks_environment_outranks_file_outranks_default(
    given: dict[str, Any], tmp_path: Path
) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text("settle_seconds = 1.5\nscan_seconds = 2.5\nreport_after_seconds = 3.5\n")
    environment = {"LUNGSTAGE_SCAN_SECONDS": "7", "LUNGSTAGE_REPORT_AFTER_SECONDS": "8", "HOME": "/"}
    settings = load_settings(config, {**given, "report_after_seconds": 9.0, "state": None}, environment)
    assert settings.settle_seconds == 1.5
    assert settings.scan_seconds == 7.0
    assert settings.report_after_seconds == 9.0
    assert settings.case_settle_seconds == Settings.model_fields["case_settle_seconds"].default


def test_an_unknown_key_is_refused_with_the_nearest_name(given: dict[str, Any], tmp_path: Path) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text("setle_seconds = 1\n")
    with pytest.raises(SettingsError, match=r"no setting 'setle_seconds'; did you mean 'settle_seconds'\?"):
        load_settings(config, given, {})


def test_a_slip_in_the_environment_is_refused_and_a_foreign_name_is_not(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"did you mean 'outbox'\? \(from LUNGSTAGE_OUTBOXX\)"):
        load_settings(None, given, {"LUNGSTAGE_OUTBOXX": "x"})
    assert load_settings(None, given, {"LUNGSTAGE_DATA": "/data"})


def test_every_fault_is_named_at_once(given: dict[str, Any]) -> None:
    del given["bundle"]
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {**given, "poll_seconds": -1, "log_format": "xml"}, {})
    for part in ("'bundle' is missing", "poll_seconds: ", "log_format: "):
        assert part in str(caught.value)


def test_a_missing_setting_is_told_with_what_to_give() -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {}, {})
    told = str(caught.value)
    for name, field in Settings.model_fields.items():
        if name in ("inbox", "outbox", "bundle"):
            example = field.examples[0]
            assert (
                f"the setting '{name}' is missing ({str(field.description).partition('. ')[0].rstrip('.')}): " in told
            )
            assert f'give --{name} {example}, or {name} = "{example}" in the settings file (--config)' in told
    assert "'state'" not in told, "its default follows from the outbox"


@pytest.mark.parametrize("value", ["nan", "inf", "0", "-1", "a while"])
def test_a_timer_is_a_positive_number(given: dict[str, Any], value: str) -> None:
    with pytest.raises(SettingsError, match="settle_seconds"):
        load_settings(None, given, {"LUNGSTAGE_SETTLE_SECONDS": value})


@pytest.mark.parametrize("value", ["0", "1", "-0.2", "2", "nan", "often"])
def test_a_prevalence_lies_strictly_between_0_and_1(given: dict[str, Any], value: str) -> None:
    with pytest.raises(SettingsError, match="prevalence"):
        load_settings(None, given, {"LUNGSTAGE_PREVALENCE": value})
    assert load_settings(None, given, {"LUNGSTAGE_PREVALENCE": "0.25"}).prevalence == 0.25
    assert load_settings(None, given, {}).prevalence is None


def test_the_covariates_table_is_named_from_anywhere(given: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lungstage.toml").write_text('covariates = "sites/covariates.csv"\nprevalence = 0.4\n')
    settings = load_settings(tmp_path / "lungstage.toml", given, {})
    assert (settings.covariates, settings.prevalence) == (tmp_path / "sites" / "covariates.csv", 0.4)


def test_trusted_keys_are_a_list_from_anywhere(given: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(None, given, {}).trusted_keys == ()
    both = (tmp_path / "old.pub", Path("/keys/new.pub"))
    assert load_settings(None, given, {"LUNGSTAGE_TRUSTED_KEYS": "old.pub:/keys/new.pub"}).trusted_keys == both
    (tmp_path / "lungstage.toml").write_text('trusted_keys = ["old.pub", "/keys/new.pub"]\n')
    assert load_settings(tmp_path / "lungstage.toml", given, {}).trusted_keys == both
    assert load_settings(None, {**given, "trusted_keys": [Path("one.pub")]}, {}).trusted_keys == (tmp_path / "one.pub",)


@pytest.mark.parametrize(
    "environment",
    [
        {"LUNGSTAGE_TRUSTED_KEYS": ""},  # an empty variable must not turn the check of signatures off
        {"LUNGSTAGE_TRUSTED_KEYS": "/keys/a.pub:"},
        {"LUNGSTAGE_TRUSTED_KEY": "/keys/a.pub"},
    ],
)
def test_a_slip_in_the_trusted_keys_does_not_trust_everybody(
    given: dict[str, Any], environment: dict[str, str]
) -> None:
    with pytest.raises(SettingsError, match="trusted_key"):
        load_settings(None, given, environment)


def test_each_outbox_has_a_state_folder_of_its_own_beside_it(given: dict[str, Any], tmp_path: Path) -> None:
    assert load_settings(None, given, {}).state == tmp_path / ".lungstage-out"
    assert default_state(tmp_path / "other") != default_state(tmp_path / "out")
    assert load_settings(None, {**given, "state": tmp_path / "s"}, {}).state == tmp_path / "s"


def test_folders_are_absolute_so_that_the_ledger_says_where_a_report_lies(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings(None, {"inbox": "in", "outbox": "./out", "bundle": "b"}, {})
    assert (settings.inbox, settings.outbox) == (tmp_path / "in", tmp_path / "out")
    assert settings.state == tmp_path / ".lungstage-out"


def test_a_shipped_bundle_is_named_from_anywhere(given: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "lungstage.toml"
    config.write_text('bundle = "lung1-stage"\n')
    del given["bundle"]
    assert load_settings(config, given, {}).bundle == SHIPPED / "lung1-stage"
    assert load_settings(None, given, {"LUNGSTAGE_BUNDLE": "lung1-stage"}).bundle == SHIPPED / "lung1-stage"
    assert load_settings(None, {**given, "bundle": Path("lung1-stage")}, {}).bundle == SHIPPED / "lung1-stage"
    for path in ("./models/lung1-stage", "none-of-ours"):
        assert load_settings(None, given, {"LUNGSTAGE_BUNDLE": path}).bundle == tmp_path / path
    (tmp_path / "lung1-stage").mkdir()
    assert load_settings(config, given, {}).bundle == tmp_path / "lung1-stage"


@pytest.mark.parametrize("work", [1.0, 120.0, 121.0, 3600.0, 86400.0])
def test_a_lease_outlasts_whatever_a_study_may_take(given: dict[str, Any], work: float) -> None:
    settings = load_settings(None, {**given, "work_seconds": work}, {})
    assert settings.lease_seconds == max(600.0, settings.wall_seconds + 120.0)
    assert load_settings(None, {**given, "work_seconds": work, "lease_seconds": 4 * work + 1}, {})
    for lease in (work, 4 * work):
        with pytest.raises(SettingsError, match=rf"lease_seconds must be more than the {4 * work:g} s .* work_seconds"):
            load_settings(None, {**given, "work_seconds": work, "lease_seconds": lease}, {})


def test_of_a_faulty_limit_only_the_fault_is_told(given: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=r"^work_seconds: .* greater than 0\.$"):
        load_settings(None, {**given, "work_seconds": -1}, {})


@pytest.mark.parametrize(
    ("name", "where"), [("outbox", "in"), ("outbox", "in/side"), ("inbox", "out/side"), ("state", "in/side")]
)
def test_folders_that_would_feed_each_other_are_refused(
    given: dict[str, Any], tmp_path: Path, name: str, where: str
) -> None:
    with pytest.raises(SettingsError, match="must not lie in"):
        load_settings(None, {**given, name: tmp_path / where}, {})


def test_a_link_does_not_hide_that(given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    with pytest.raises(SettingsError, match="must not lie in"):
        load_settings(None, {**given, "outbox": tmp_path / "link" / "out"}, {})


def test_a_file_that_is_missing_or_not_toml_is_said_so(given: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "absent.toml", given, {})
    (tmp_path / "bad.toml").write_text("inbox = ")
    with pytest.raises(SettingsError, match="not TOML"):
        load_settings(tmp_path / "bad.toml", given, {})


def test_settings_are_frozen_and_each_is_explained(given: dict[str, Any]) -> None:
    settings = load_settings(None, given, {})
    with pytest.raises(ValidationError, match="frozen"):
        settings.settle_seconds = 5.0  # type: ignore[misc]
    assert all(field.description for field in Settings.model_fields.values())


def test_the_command_line_finds_the_daemon_s_state(tmp_path: Path) -> None:
    config = tmp_path / "lungstage.toml"
    config.write_text(f'outbox = "{tmp_path / "out"}"\n')
    assert state_of(None, config, {}) == tmp_path / ".lungstage-out"
    assert state_of(None, config, {"LUNGSTAGE_STATE": "/s"}) == Path("/s")
    assert state_of(Path("/t"), config, {"LUNGSTAGE_STATE": "/s"}) == Path("/t")
    with pytest.raises(SettingsError, match="--state"):
        state_of(None, None, {})


@pytest.mark.parametrize(
    ("given", "formats"),
    [
        ("pdf", ("sr", "pdf")), ("html, SC", ("sr", "sc", "html")), ("sr", ("sr",)),
        (["sc", "pdf"], ("sr", "pdf", "sc")),
        ([], ("sr",)),
    ],
)  # fmt: skip
def test_the_structured_report_is_always_among_the_formats(
    given: object, formats: tuple[str, ...], tmp_path: Path
) -> None:
    paths = {name: tmp_path / name for name in ("inbox", "outbox", "bundle")}
    assert load_settings(None, {**paths, "formats": given}, {}).documents.formats == formats


@pytest.mark.parametrize("given", ["docx", "sr,,pdf", 7, {"pdf": 1}, ["pdf", None]])
def test_a_format_that_is_none_is_refused(given: object, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("inbox", "outbox", "bundle")}
    with pytest.raises(SettingsError, match="formats"):
        load_settings(None, {**paths, "formats": given}, {})
