"""All checks in their order, and their output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from lungstage.appliance.config.settings import Settings, SettingsError, load_settings
from lungstage.appliance.doctor import daemon, folders, host, software
from lungstage.appliance.doctor.finding import Finding, Verdict, ok, problem

_CHECKS: Final[tuple[Callable[[Settings], Iterator[Finding]], ...]] = (
    folders.user, folders.inbox, folders.outbox, folders.state, folders.space,
    software.bundle, software.covariates, software.decoders, software.fonts,
    host.watcher, host.clock, host.memory, host.confinement,
    daemon.daemon, daemon.ledger, daemon.metrics,
)  # fmt: skip


def examine(config: Path | None, overrides: Mapping[str, Any]) -> tuple[Finding, ...]:
    """Make every check with the settings that the daemon would have. A check that fails does not stop the others.

    Parameters
    ----------
    config, overrides
        As for :func:`config.settings.load_settings`.
    """
    try:
        settings = load_settings(config, overrides)
    except SettingsError as error:
        return (problem("settings", str(error), "lungstage settings lists all settings."),)
    found = [ok("settings", "The settings can be used.")]
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (*_CHECKS, partial(daemon.messages, config=config))
    for check in checks:
        try:
            found += check(settings)
        except OSError as error:
            where = f" at {error.filename}" if error.filename else ""
            remedy = "Check the disk and the mount."
            if isinstance(error, PermissionError):
                remedy = "Run lungstage doctor as the daemon's user, or give that user access to all folders above."
            name = getattr(check, "__name__", "notify")
            found.append(problem(name, f"This could not be checked: {error.strerror}{where}.", remedy))
    return tuple(found)


def worst(findings: tuple[Finding, ...]) -> Verdict:
    """Return the most serious verdict."""
    return max((finding.verdict for finding in findings), key=list(Verdict).index)


def in_words(findings: tuple[Finding, ...]) -> str:
    """Write the findings, one line each."""
    return "\n".join(
        f"{one.verdict:<8} {one.check:<10} {one.sentence}" + (f" {one.remedy}" if one.remedy else "")
        for one in findings
    )


def as_json(findings: tuple[Finding, ...]) -> str:
    """Write the findings as one JSON object."""
    return json.dumps({"verdict": worst(findings), "findings": [asdict(one) for one in findings]}, indent=2)
