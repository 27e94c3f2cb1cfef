"""Log lines with UIDs, job numbers and codes, and without anything about a person from a DICOM file or its name.

Only lungstage's own logger writes. Messages and warnings of other libraries are dropped, because they quote values from
the files that they read. An exception is logged with its type and its frames, without its message.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from lungstage.appliance.contract.errors import DefectError

logger = logging.getLogger("lungstage")

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    def __init__(self, style: Literal["text", "json"]) -> None:
        super().__init__()
        self._json = style == "json"

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"time": moment, "level": record.levelname.lower(), "event": record.getMessage()}
        fields |= {key: value for key, value in record.__dict__.items() if key not in _STANDARD and value is not None}
        if self._json:
            return json.dumps(fields, default=str)
        return " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())


def _quoted(value: str) -> str:
    return value if value.isprintable() and not set(value) & {" ", '"', "="} and value else json.dumps(value)


def configure(style: Literal["text", "json"], level: str = "INFO") -> None:
    """Send lungstage's log to stderr and silence the logs of all libraries."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(style))
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
    logging.getLogger().handlers = [logging.NullHandler()]
    logging.captureWarnings(True)
    # If a line cannot be written, logging would print the current exception instead, with its message.
    logging.raiseExceptions = False


def defect(error: BaseException) -> dict[str, str]:
    """Return type and frames of an exception, innermost last. The message is left out, because it may quote the data.

    An exception from another process already contains them.
    """
    if isinstance(error, DefectError):
        return error.defect
    frames = traceback.extract_tb(error.__traceback__)
    where = " > ".join(f"{Path(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in frames)
    return {"error": type(error).__name__, "frames": where}
