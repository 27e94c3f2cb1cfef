"""Section of the card on feature selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lungstage.export.markdown import bullets, figure
from lungstage.training.procedure import PRESETS

Record = Mapping[str, Any]


def selection(record: Record) -> str:
    """Write the section *Selection* from the record; empty if the record has nothing about it."""
    facts = []
    if preset := _preset(record):
        facts.append(f"Settings: the preset `{preset}`.")
    if settings := record["settings"].get("selection"):
        facts.append(f"All settings: {', '.join(f'{key} = {_setting(settings[key])}' for key in sorted(settings))}.")
    if rated := record.get("repeatability"):
        facts.append(
            f"Features left out before the selection, with an intraclass correlation below {rated['minimum']:g} in "
            f"`{rated['table']}`: "
            f"{', '.join(f'`{name}`' for name in sorted(rated['left_out'])) or 'none'}."
        )
    if curve := record.get("curve"):
        by_count = dict(zip(curve["k"], zip(curve["auc"], curve["se"], strict=True), strict=True))
        said = [
            f"{count} features, {meaning}: AUC {by_count[count][0]:.3f} (standard error {by_count[count][1]:.3f})"
            for meaning, count in (
                ("the best", curve["best"]),
                ("the fewest within one standard error of it", curve["one_se"]),
                ("this model's", curve["chosen"]),
            )
            if count in by_count
        ]
        facts.append(f"AUC by the number of features, on inner folds: {'; '.join(said)}.")
    if stability := record.get("stability_selection"):
        facts.append(
            f"Selection repeated on {stability['pairs']} pairs of complementary halves of the patients (Shah & "
            f"Samworth 2013): stability {figure(stability['nogueira'])} (Nogueira, Sechidis & Brown 2018)."
        )
    return bullets(facts)


def frequency(record: Record) -> tuple[Mapping[str, float], str]:
    """Return the selection frequency of each feature, and the unit that it is a share of."""
    if stability := record.get("stability_selection"):
        return stability["frequency"], "halves of the patients"
    return record.get("selection_frequency") or {}, "folds"


def _preset(record: Record) -> str | None:
    digest = record.get("procedure_sha256")
    named = (name for name, preset in PRESETS.items() if replace(preset, seed=record["seed"]).digest() == digest)
    return next(named, None)


def _setting(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
