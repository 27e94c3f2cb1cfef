"""The settings, explained: what is in force and where it comes from, and a file to begin with."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lungstage.appliance.config.settings import Settings, Unit, given_settings, load_settings

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
"""Values for the template where a setting has no default that a file could say."""


@dataclass(frozen=True, slots=True)
class Explained:
    """One setting.

    Attributes
    ----------
    name
        Key in the file.
    value
        The value in force, in JSON's terms; None where there is none.
    source
        ``default``, ``unset`` (required, and given nowhere), the file or the environment variable.
    default
        The default in words, as docs/settings.md has it.
    meaning
        What it is for.
    """

    name: str
    value: Any
    source: str
    default: str
    meaning: str


def explain(config: Path | None, environment: Mapping[str, str] | None = None) -> tuple[Explained, ...]:
    """Explain every setting as a daemon started with this file and environment would have it.

    Raises
    ------
    SettingsError
        When what is given cannot be used; that a folder is not given yet is no fault here.
    """
    given = given_settings(config, environment)
    sources = {name: source for name, (_, source) in given.items()}
    unset = {name for name, field in Settings.model_fields.items() if field.is_required()} - given.keys()
    if "outbox" in given:
        unset -= {"state"}  # it follows from the outbox
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
    """Return a setting's default as a person reads it."""
    field = Settings.model_fields[name]
    _, told, words = str(field.description).partition("default: ")
    if told:  # it depends on something else, so the description has it
        return words.rstrip(".")
    if field.is_required():
        return "required"
    if field.default is None:
        return "none"
    return field.default if isinstance(field.default, str) else _toml(field.default)


def in_words(explained: tuple[Explained, ...]) -> str:
    """Put the settings into lines for a person."""
    lines = []
    for one in explained:
        value = "none" if one.value is None else _toml(one.value)
        where = {"default": "default", "unset": "required, and not set"}.get(
            one.source, f"{one.source}; default: {one.default}"
        )
        lines.append(f"{one.name} = {value}    [{where}]\n    {one.meaning}")
    return "\n".join(lines)


def as_json(explained: tuple[Explained, ...]) -> str:
    """Put the settings into a JSON list."""
    return json.dumps([asdict(one) for one in explained], indent=2)


def template() -> str:
    """Return a settings file with every setting, its meaning, its unit and its default.

    The folders are set, to the places of ``lungstage install-service``; all else is a comment, so that a later
    release's defaults take effect.
    """
    parts = ["# Settings of lungstage; docs/settings.md says more. What is commented out stands at its default."]
    for name, field in Settings.model_fields.items():
        value = _EXAMPLES.get(name, field.default)
        mark = "" if field.is_required() else "# "
        notes = [f"In {unit.name}." for unit in field.metadata if isinstance(unit, Unit)]
        notes += ["None by default; what follows is an example."] if field.default is None else []
        told = " ".join([str(field.description), *notes])
        comment = textwrap.wrap(told, 100, initial_indent="# ", subsequent_indent="# ")
        parts.append("\n".join([*comment, f"{mark}{name} = {_toml(value)}"]))
    return "\n\n".join(parts)


def _toml(value: Any) -> str:
    """Write a value as TOML: for text, numbers, truth values and lists of these, JSON is the same."""
    return json.dumps(value, default=str)
