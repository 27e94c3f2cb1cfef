"""Explain the settings: the values in use, their sources, and a template of the settings file."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.config.settings import GROUPS, Settings, given_settings, load_settings

_EXAMPLES = {
    **{name: field.examples[0] for name, field in Settings.model_fields.items() if field.examples},
    "roi_name": "GTV-1",
    "prevalence": 0.3,
    "covariates": "/etc/lungstage/covariates.csv",
    "workers": 2,
    "lease_seconds": 600.0,
    "canary_seconds": 3600.0,
    "metrics_port": 9477,
}
"""Example values for settings whose default cannot be written into a file."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting.

    Attributes
    ----------
    name
        Key in the file.
    value
        The value in use, as JSON; None if there is none.
    source
        ``default``, ``unset`` (required, but not given), the file or the environment variable.
    default
        The default in words, as in docs/settings.md.
    meaning
        What the setting does.
    """

    name: str
    value: Any
    source: str
    default: str
    meaning: str


def explain(config: Path | None, environment: Mapping[str, str] | None = None) -> tuple[Explained, ...]:
    """Explain every setting with the value that a daemon with this file and environment uses.

    Raises
    ------
    SettingsError
        When a given value cannot be used. A folder that is not given yet is no error here.
    """
    given = given_settings(config, environment)
    sources = {name: source for name, (_, source) in given.items()}
    unset = {name for name, field in Settings.model_fields.items() if field.is_required()} - given.keys()
    if "outbox" in given:
        unset -= {"state"}  # its default follows from the outbox
    stand_ins = {name: Path("/unset", name) for name in unset}
    in_force = load_settings(config, stand_ins, environment).model_dump(mode="json")
    return tuple(
        Explained(
            name=name,
            value=None if name in unset else in_force[name],
            source="unset" if name in unset and name != "state" else sources.get(name, "default"),
            default=default_in_words(name),
            meaning=str(field.description),
        )
        for name, field in Settings.model_fields.items()
    )


def default_in_words(name: str) -> str:
    """Return the default of a setting in words."""
    field = Settings.model_fields[name]
    _, found, words = str(field.description).partition("default: ")
    if found:  # the default depends on something else, so the description names it
        return words.rstrip(".")
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    return field.default if isinstance(field.default, str) else _toml(field.default)


def in_words(explained: tuple[Explained, ...]) -> str:
    """Write the settings for a person, in groups."""
    by_name = {one.name: one for one in explained}
    return "\n\n".join(
        "\n".join([title, *(_lines_of(by_name[name]) for name in names)]) for title, names in GROUPS.items()
    )


def _lines_of(one: Explained) -> str:
    value = "none" if one.value is None else _toml(one.value)
    where = {"default": "default", "unset": "required, and not set"}.get(
        one.source, f"{one.source}; default: {one.default}"
    )
    return f"{one.name} = {value}    [{where}]\n    {one.meaning}"


def as_json(explained: tuple[Explained, ...]) -> str:
    """Write the settings as a JSON list."""
    return json.dumps([asdict(one) for one in explained], indent=2)


def template() -> str:
    """Return a settings file with every setting, its meaning, its unit and its default.

    The folders are set as ``lungstage install-service`` makes them. All other settings are comments, so that the
    defaults of a later release take effect.
    """
    parts = [
        "# Settings of lungstage. docs/settings.md explains them.\n"
        "# A line that begins with # is not used: the setting has its default. Remove the # to change it."
    ]
    for title, names in GROUPS.items():
        parts.append(f"# ---- {title} ----")
        parts += [_entry(name) for name in names]
    return "\n\n".join(parts)


def _entry(name: str) -> str:
    """Return the lines of one setting: what it does as a comment, and its value."""
    field = Settings.model_fields[name]
    value = _EXAMPLES.get(name, field.default)
    mark = "" if field.is_required() else "# "
    note = " No default; the next line is an example." if field.default is None else ""
    comment = textwrap.wrap(f"{field.description}{note}", 100, initial_indent="# ", subsequent_indent="# ")
    return "\n".join([*comment, f"{mark}{name} = {_toml(value)}"])


def _toml(value: Any) -> str:
    """Write a value as TOML. For text, numbers, truth values and lists of these, TOML is the same as JSON."""
    return json.dumps(value, default=str)
