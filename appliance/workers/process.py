"""A process that meets files in the daemon's place: whatever a file does to it, the daemon lives on.

It runs :mod:`workers.main`, confined in what it may do (:mod:`workers.confinement`), in memory, file size and time, and
is tied to the daemon by two pipes: it ends when the daemon does. What it answers is read as plain data, in its time and
to its limits, and the daemon never waits for it longer than a request may take.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from lungstage.appliance.config.settings import WALL_FACTOR
from lungstage.appliance.contract.errors import DefectError, ExhaustedError, KilledError, Unavailable
from lungstage.appliance.workers import frames, processor_time
from lungstage.appliance.workers.confinement import Confinement
from lungstage.appliance.workers.messages import Request, Setting, ViewerSetting, write_request

AnswerT = TypeVar("AnswerT")

PROGRAM = "from lungstage.appliance.workers.main import main; main()"
_START_SECONDS = 60.0
_END_SECONDS = 5.0
_PIPE_BYTES = 1024**2  # what Linux lets anyone have


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may take.

    Attributes
    ----------
    seconds
        Of processor time, for one request; :data:`config.settings.WALL_FACTOR` times as many by the clock.
    memory
        Bytes of data (RLIMIT_DATA).
    file_size
        Bytes of any file that it writes: the phantom study's, and a compressed frame, in memory.
    """

    seconds: float = 120.0
    memory: int = 4 * 1024**3
    file_size: int = 16 * 1024**2


class WorkerProcess:
    """One process at work: takes one request at a time, and is made anew after it was ended.

    Parameters
    ----------
    setting
        What the process is set up with before the first request.
    limits
        What it may take.
    started
        Told of each process that is started.
    """

    def __init__(
        self, setting: Setting | ViewerSetting, limits: Limits, started: Callable[[], None] = lambda: None
    ) -> None:
        self._setting, self._limits, self._started = setting, limits, started
        self._process: subprocess.Popen[bytes] | None = None
        self._requests, self._answers = -1, frames.FrameReader(-1)
        self._seconds, self._until = 0.0, 0.0  # what the request in hand may compute, and when it has to be over
        self._is_set_up = False
        self.confinement = Confinement()
        """How the process is confined, once it is set up."""

    @property
    def pid(self) -> int | None:
        """Number of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def descriptor(self) -> int | None:
        """File descriptor that becomes readable when the answer is there, while one is awaited."""
        return self._answers.descriptor if self._process is not None else None

    @property
    def due(self) -> float:
        """When the request in hand has taken too long, on the monotonic clock."""
        return self._until

    def start(self) -> None:
        """Start the process, where none is alive, without waiting until it is set up."""
        if self._process is not None and self._process.poll() is None:
            return
        self.end()
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            theirs_in, ours_out = os.pipe()
            theirs.callback(os.close, theirs_in)
            ours.callback(os.close, ours_out)
            ours_in, theirs_out = os.pipe()
            theirs.callback(os.close, theirs_out)
            ours.callback(os.close, ours_in)
            command = [sys.executable, "-P", "-c", PROGRAM]
            command += map(
                str, (theirs_in, theirs_out, self._limits.memory, self._limits.file_size, self._setting.scratch)
            )
            self._process = subprocess.Popen(  # noqa: S603  (our own module)
                command,
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # there are several of them, for as many processors
            )
            ours.pop_all()
        for descriptor in (ours_out, ours_in):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):  # so that no message has to wait until it is read; else it waits
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._requests, self._answers = ours_out, frames.FrameReader(ours_in)
        self._started()
        self._is_set_up = False
        self._send(self._setting, _START_SECONDS)

    def ask(self, request: Request[Any]) -> None:
        """Hand over a request; :meth:`answer` gives what became of it.

        Raises
        ------
        Unavailable, OSError
            The process cannot be set up, which no request is to blame for.
        """
        self._come_up()
        if frames.is_ready(self._answers.descriptor, select.POLLIN, 0):  # it has died, or spoken unasked
            self.end()
            self._come_up()
        try:
            self._send(request, self._limits.seconds)
        except ExhaustedError:  # over something else, before
            self._come_up()
            self._send(request, self._limits.seconds)

    def has_answered(self) -> bool:
        """Whether :meth:`answer` would return, or raise, at once."""
        with contextlib.suppress(OSError, EOFError, frames.FrameTooLargeError):
            return self._answers.advance() or time.monotonic() >= self._until
        return True

    def answer(self, request: Request[AnswerT]) -> AnswerT:
        """Wait for the answer to the request in hand, and return it.

        Raises
        ------
        ExhaustedError
            The process died, or was ended because it took too long or answered too much.
        DefectError
            A defect of ours; or what the process said is no answer, and it was ended.
        Exception
            Whatever else the step raised.
        """
        try:
            while not self._answers.advance():
                if not frames.is_ready(self._answers.descriptor, select.POLLIN, self._until):
                    raise self._too_slow()
        except frames.FrameTooLargeError as error:
            self.end()
            most = frames.MOST_BYTES // 1024**2
            raise ExhaustedError(f"It answered with more than {most} MB.") from error
        except (EOFError, OSError) as error:
            raise self._died() from error
        try:
            answer = request.read(self._answers.take())
        except ValueError:
            self.end()
            about = {"error": "MalformedAnswer", "frames": type(request).__name__}
            raise DefectError(about) from None  # its own words would quote the answer
        if isinstance(answer, MemoryError):
            self.end()
            raise ExhaustedError(f"It took more than {self._limits.memory // 1024**2} MB of memory.")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, request: Request[AnswerT]) -> AnswerT:
        """Hand over a request and wait for its answer."""
        self.ask(request)
        return self.answer(request)

    def set_up(self) -> None:
        """Wait until the process is set up, where it is not.

        Raises
        ------
        Unavailable
            It did not come up.
        Exception
            Whatever setting it up raised.
        """
        try:
            self.start()
            if self._is_set_up:
                return
            self.confinement = self.answer(self._setting)
        except ExhaustedError as error:
            raise Unavailable(f"A process could not be set up. {error}") from error
        except Exception:
            self.end()  # it would wait for another setting, and whoever asks next for its answer
            raise
        self._is_set_up = True

    def is_up(self) -> bool:
        """Whether a request would be taken at once, if only to be told why it cannot be."""
        if self._process is None:
            return False
        return self._process.poll() is None if self._is_set_up else self.has_answered()

    def is_coming_up(self) -> bool:
        """Whether the process is being set up."""
        return self._process is not None and not self._is_set_up and not self.has_answered()

    def _come_up(self) -> None:
        try:
            self.set_up()
        except (Unavailable, OSError):
            raise
        except Exception as error:  # the bundle has proven itself before, so it is this machine, or this moment
            raise Unavailable("A process could not be set up.") from error

    def is_set_up(self) -> bool:
        """Whether the process that was started is set up, without waiting.

        Raises
        ------
        Exception
            Whatever setting it up raised; it is then not tried again.
        """
        if not self._is_set_up and self.has_answered():
            self.confinement = self.answer(self._setting)
            self._is_set_up = True
        return self._is_set_up

    def end(self) -> None:
        """End the process now, whatever it is at."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(_END_SECONDS)
        for descriptor in (self._requests, self._answers.descriptor):
            os.close(descriptor)
        self._requests, self._answers = -1, frames.FrameReader(-1)

    def _send(self, request: Request[Any], seconds: float) -> None:
        self._seconds, self._until = seconds, time.monotonic() + WALL_FACTOR * seconds
        with contextlib.suppress(OSError):  # it has just died, which the pipe will say
            if self._process is not None and self._process.poll() is None:
                processor_time.allow(self._process.pid, seconds)
        try:
            if not frames.write(self._requests, write_request(request), self._until):
                raise self._too_slow()
        except OSError as error:
            raise self._died() from error

    def _too_slow(self) -> ExhaustedError:
        self.end()
        return ExhaustedError(f"It took longer than {WALL_FACTOR * self._seconds:g} s.")

    def _died(self) -> ExhaustedError:
        process = self._process
        status = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(_END_SECONDS)
        self.end()
        if status == -signal.SIGKILL:
            return KilledError("Its process was ended by SIGKILL.")
        if status == -signal.SIGXCPU:
            return ExhaustedError(f"It took more than {self._seconds:g} s of processor time.")
        if status is not None and status < 0:
            return ExhaustedError(f"Its process was ended by {signal.Signals(-status).name}.")
        return ExhaustedError(f"Its process ended with status {status}.")
