"""Run a commissioning: make every check of the plan, in order, on this machine, and return the report."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from lungstage.appliance.commissioning.acceptance import check_bundle, check_phantom
from lungstage.appliance.commissioning.constancy import check_reference_cases
from lungstage.appliance.commissioning.ibsi_phantom import check_digital_phantom
from lungstage.appliance.commissioning.instrument import Instrument, environment
from lungstage.appliance.commissioning.plan import (
    PLAN_NAME,
    Pair,
    Plan,
    ReferenceCase,
    Study,
    Thresholds,
    read_pairs,
    read_plan,
    read_reference_cases,
    read_studies,
)
from lungstage.appliance.commissioning.retest import check_pairs
from lungstage.appliance.commissioning.skew import check_patients
from lungstage.appliance.commissioning.verdict import Check, Verdict, worst
from lungstage.appliance.model.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a commissioning.

    Attributes
    ----------
    title
        Title of the plan.
    at
        Time of the start.
    checks
        The checks in their order.
    environment
        Software, bundle, libraries and machine.
    thresholds
        The limits that were used.
    files
        SHA-256 of the plan, its lists and the expected results, by name.
    """

    title: str
    at: datetime
    checks: tuple[Check, ...]
    environment: Mapping[str, str]
    thresholds: Thresholds
    files: Mapping[str, str]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of the checks. Checks that are not in the plan do not count."""
        found = worst(check.verdict for check in self.checks)
        return Verdict.PASS if found is Verdict.NOTE else found


@dataclass(frozen=True, slots=True)
class _Lists:
    """The plan's lists; empty if it has none."""

    cases: tuple[ReferenceCase, ...]
    pairs: tuple[Pair, ...]
    patients: tuple[Study, ...]

    @classmethod
    def read(cls, plan: Plan) -> _Lists:
        return cls(
            read_reference_cases(plan.cases) if plan.cases else (),
            read_pairs(plan.pairs) if plan.pairs else (),
            read_studies(plan.patients) if plan.patients else (),
        )


def commission(path: Path, now: datetime, *, record: bool = False) -> Report:
    """Make the checks of a plan.

    Parameters
    ----------
    path
        The plan's file, or its folder.
    now
        Time of the start.
    record
        Record the answers of the reference cases again; they replace the expected answers.

    Raises
    ------
    PlanError
        The plan cannot be used.
    Refused
        ``table_invalid``: a list is not well-formed.
    Unavailable
        A study of a list does not exist.
    """
    plan = read_plan(path)
    lists = _Lists.read(plan)  # read first, so that a faulty list is reported before the long checks
    bundle_check, bundle = check_bundle(plan.bundle)
    checks = [bundle_check]
    if bundle is not None:
        checks += _checks(plan, lists, bundle, now, record)
    files = {"plan": path / PLAN_NAME if path.is_dir() else path, "cases": plan.cases, "pairs": plan.pairs}
    files |= {"patients": plan.patients, "expected": plan.expected if plan.cases else None}
    return Report(
        title=plan.title,
        at=now,
        checks=tuple(checks),
        environment=environment(bundle),
        thresholds=plan.thresholds,
        files={name: _sha256(file) for name, file in files.items() if file is not None and file.is_file()},
    )


def _checks(plan: Plan, lists: _Lists, bundle: Bundle, now: datetime, record: bool) -> Iterator[Check]:
    instrument = Instrument(bundle, plan)
    yield check_phantom(plan.bundle, bundle)
    yield check_digital_phantom(plan.ibsi) if plan.ibsi else _not_planned("IBSI digital phantom")
    if lists.cases:
        yield check_reference_cases(lists.cases, instrument, plan.expected, plan.thresholds, now, record=record)
    else:
        yield _not_planned("reference cases")
    if lists.pairs:
        yield from check_pairs(lists.pairs, instrument, plan.thresholds)
    else:
        yield _not_planned("test–retest pairs")
    if lists.patients:
        yield from check_patients(lists.patients, instrument, plan.thresholds)
    else:
        yield _not_planned("the site's patients")


def _not_planned(name: str) -> Check:
    return Check(name, Verdict.NOTE, "Not in the plan.")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
