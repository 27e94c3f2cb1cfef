"""A commissioning from its plan to its report: every check that the plan asks for, in order, on this machine."""

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
    """What a commissioning found.

    Attributes
    ----------
    title
        Of the plan.
    at
        When it began.
    checks
        In the order in which they were made.
    environment
        Software, bundle, libraries and machine.
    thresholds
        By which the checks were judged.
    files
        SHA-256 of the plan, of its lists and of what was expected, by name.
    """

    title: str
    at: datetime
    checks: tuple[Check, ...]
    environment: Mapping[str, str]
    thresholds: Thresholds
    files: Mapping[str, str]

    @property
    def verdict(self) -> Verdict:
        """The worst of the checks; that some were not in the plan is no blemish."""
        found = worst(check.verdict for check in self.checks)
        return Verdict.PASS if found is Verdict.NOTE else found


@dataclass(frozen=True, slots=True)
class _Lists:
    """The plan's lists; empty where it has none."""

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
    """Do what a plan says.

    Parameters
    ----------
    path
        The plan's file, or its folder.
    now
        When.
    record
        Record the reference cases' answers anew, in place of those that were expected.

    Raises
    ------
    PlanError
        The plan cannot be used.
    Refused
        ``table_invalid``: a list of it is not well-formed.
    Unavailable
        A study that it names is not there.
    """
    plan = read_plan(path)
    lists = _Lists.read(plan)  # what is wrong with one is said before anything has taken its time
    proof, bundle = check_bundle(plan.bundle)
    checks = [proof]
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
