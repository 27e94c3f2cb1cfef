"""The daemon's sign of life: a small file in the state folder that says when it last went round its loop.

A process that hangs, over a dead network share for instance, is still there for a supervisor; its heartbeat is not.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from lungstage.appliance.contract.errors import Unavailable

NAME = "heartbeat.json"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What the daemon says of itself.

    Attributes
    ----------
    at
        When (UTC).
    patience
        Seconds after which a daemon that says nothing more is to be taken for stuck.
    version, bundle_digest
        Of what answers.
    watch
        How it learns of new files.
    files
        Files in the inbox when it last looked.
    in_hand, overdue
        Jobs that are being staged, and how many in hand have been for longer than their lease.
    canary
        Whether the last canary came through; None while none did.
    outbox_replaced
        Whether another folder lies in the place of the outbox, so that nothing is delivered.
    """

    at: datetime
    patience: float
    version: str
    bundle_digest: str
    watch: Literal["events", "poll"]
    files: int
    in_hand: int
    overdue: int
    canary: bool | None
    outbox_replaced: bool = False


def write(state: Path, heartbeat: Heartbeat) -> None:
    """Write the sign of life, whole or not at all.

    Raises
    ------
    OSError
        When the state folder cannot be written to.
    """
    temporary = state / f".{NAME}.part"
    temporary.write_text(json.dumps(asdict(heartbeat) | {"at": heartbeat.at.isoformat()}), encoding="utf-8")
    os.replace(temporary, state / NAME)


def end(state: Path) -> None:
    """Take the sign of life back: the daemon has ended as it should."""
    (state / NAME).unlink(missing_ok=True)


def read(state: Path) -> Heartbeat | None:
    """Return the last sign of life; None where there never was one."""
    try:
        fields = json.loads((state / NAME).read_text(encoding="utf-8"))
        return Heartbeat(**fields | {"at": datetime.fromisoformat(fields["at"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unavailable(f"The daemon's heartbeat cannot be read ({type(error).__name__}).") from error


def prove_alive(state: Path, now: datetime | None = None) -> Heartbeat:
    """Return the sign of life of a daemon that is well.

    Raises
    ------
    Unavailable
        When there is none, when it is too old, when a job has been in hand for too long, or when the last canary
        did not come through.
    """
    heartbeat = read(state)
    if heartbeat is None:
        raise Unavailable("No daemon has given a sign of life in this state folder.")
    age = (now or datetime.now(UTC)) - heartbeat.at
    if not timedelta(seconds=-heartbeat.patience) <= age <= timedelta(seconds=heartbeat.patience):
        raise Unavailable(f"The daemon's last sign of life is {age.total_seconds():.0f} s old.")
    if heartbeat.overdue:
        raise Unavailable(f"Jobs in hand for longer than their lease (lease_seconds): {heartbeat.overdue}.")
    if heartbeat.canary is False:
        raise Unavailable("The daemon's last canary study did not come through.")
    return heartbeat
