"""The daemon's heartbeat: a small file in the state folder with the time of the last round of its loop.

For a supervisor, a process that hangs (for example on a dead network share) still runs; but its heartbeat gets old.
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
    """The daemon's status.

    Attributes
    ----------
    at
        Time of the heartbeat (UTC).
    patience
        Age in seconds above which the daemon counts as stuck.
    version, bundle_digest
        Software version and bundle in use.
    watch
        How the daemon finds new files.
    files
        Files in the inbox at the last look.
    in_hand, overdue
        Number of jobs being staged, and of jobs being processed longer than their lease.
    canary
        Whether the last canary was delivered in time; None before the first result.
    outbox_replaced
        Whether another folder is in the place of the outbox, so that nothing is delivered.
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
    """Write the complete heartbeat, or nothing.

    Raises
    ------
    OSError
        The state folder cannot be written.
    """
    temporary = state / f".{NAME}.part"
    temporary.write_text(json.dumps(asdict(heartbeat) | {"at": heartbeat.at.isoformat()}), encoding="utf-8")
    os.replace(temporary, state / NAME)


def end(state: Path) -> None:
    """Delete the heartbeat: the daemon has ended normally."""
    (state / NAME).unlink(missing_ok=True)


def read(state: Path) -> Heartbeat | None:
    """Return the last heartbeat; None if there is none."""
    try:
        fields = json.loads((state / NAME).read_text(encoding="utf-8"))
        return Heartbeat(**fields | {"at": datetime.fromisoformat(fields["at"])})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unavailable(
            f"The daemon's heartbeat cannot be read ({type(error).__name__}). Run the command as the daemon's user."
        ) from error


def prove_alive(state: Path, now: datetime | None = None) -> Heartbeat:
    """Return the heartbeat of a daemon that works normally.

    Raises
    ------
    Unavailable
        There is no heartbeat, it is too old, a job is being processed too long, or the last canary was not delivered
        in time.
    """
    heartbeat = read(state)
    if heartbeat is None:
        raise Unavailable(
            "There is no heartbeat of a daemon in this state folder. Start the daemon, or correct the state folder."
        )
    age = (now or datetime.now(UTC)) - heartbeat.at
    if not timedelta(seconds=-heartbeat.patience) <= age <= timedelta(seconds=heartbeat.patience):
        raise Unavailable(
            f"The daemon's last heartbeat is {age.total_seconds():.0f} s old. Read the daemon's log, then restart it."
        )
    if heartbeat.overdue:
        raise Unavailable(
            f"Jobs being processed for longer than lease_seconds: {heartbeat.overdue}. "
            "Read the daemon's log, then restart it."
        )
    if heartbeat.canary is False:
        raise Unavailable(
            "The daemon's last canary study was not delivered in time. Read the errors in the daemon's log."
        )
    return heartbeat
