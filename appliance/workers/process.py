"""A process that reads files for the daemon: a file may end this process, but not the daemon.

It runs :mod:`workers.main`, with limits on its rights (:mod:`workers.confinement`), memory, file size and time. Two
pipes connect it to the daemon, and it ends when the daemon ends. Its answers are read as plain data, within limits of
size and time. The daemon never waits longer than the time limit of a request.
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
_PIPE_BYTES = 1024**2  # the most that Linux allows every user


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one process.

    Attributes
    ----------
    seconds
        Processor time for one request; the limit by the clock is :data:`config.settings.WALL_FACTOR` times as long.
    memory
        Bytes of data (RLIMIT_DATA).
    file_size
        Largest file that it may write, in bytes: files of the phantom study, and a compressed frame in memory.
    """

    seconds: float = 120.0
    memory: int = 4 * 1024**3
    file_size: int = 16 * 1024**2


class WorkerProcess:
    """One worker process: it answers one request at a time, and is started again after it has ended.

    Parameters
    ----------
    setting
        The first request, by which the process is set up.
    limits
        Its limits.
    started
        Called for each process that is started.
    """

    def __init__(
        self, setting: Setting | ViewerSetting, limits: Limits, started: Callable[[], None] = lambda: None
    ) -> None:
        self._setting, self._limits, self._started = setting, limits, started
        self._process: subprocess.Popen[bytes] | None = None
        self._requests, self._answers = -1, frames.FrameReader(-1)
        self._seconds, self._until = 0.0, 0.0  # processor time of the present request, and its deadline
        self._is_set_up = False
        self.confinement = Confinement()
        """How the process is confined; known after set-up."""

    @property
    def pid(self) -> int | None:
        """Number of the process; None if there is none."""
        return None if self._process is None else self._process.pid

    @property
    def descriptor(self) -> int | None:
        """File descriptor that becomes readable when the answer arrives; None without a process."""
        return self._answers.descriptor if self._process is not None else None

    @property
    def due(self) -> float:
        """Deadline of the present request, on the monotonic clock."""
        return self._until

    def start(self) -> None:
        """Start the process if none is running, without waiting until it is set up."""
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
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # several processes share the processors
            )
            ours.pop_all()
        for descriptor in (ours_out, ours_in):
            os.set_blocking(descriptor, False)
            with contextlib.suppress(OSError):  # a larger pipe takes a message at once; a smaller one makes it wait
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._requests, self._answers = ours_out, frames.FrameReader(ours_in)
        self._started()
        self._is_set_up = False
        self._send(self._setting, _START_SECONDS)

    def ask(self, request: Request[Any]) -> None:
        """Start a request; :meth:`answer` returns its result.

        Raises
        ------
        Unavailable, OSError
            The process cannot be set up; the request is not the cause.
        """
        self._come_up()
        if frames.is_ready(
            self._answers.descriptor, select.POLLIN, 0
        ):  # it has died, or has sent data without a request
            self.end()
            self._come_up()
        try:
            self._send(request, self._limits.seconds)
        except ExhaustedError:  # it died before this request
            self._come_up()
            self._send(request, self._limits.seconds)

    def has_answered(self) -> bool:
        """Whether :meth:`answer` would return or raise at once."""
        with contextlib.suppress(OSError, EOFError, frames.FrameTooLargeError):
            return self._answers.advance() or time.monotonic() >= self._until
        return True

    def answer(self, request: Request[AnswerT]) -> AnswerT:
        """Wait for the answer to the present request, and return it.

        Raises
        ------
        ExhaustedError
            The process died, or was ended because it exceeded its limit of time or of answer size.
        DefectError
            An internal error; or the process sent no valid answer and was ended.
        Exception
            Another exception of the step.
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
            raise DefectError(about) from None  # the error's message would quote the answer
        if isinstance(answer, MemoryError):
            self.end()
            raise ExhaustedError(f"It took more than {self._limits.memory // 1024**2} MB of memory.")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def call(self, request: Request[AnswerT]) -> AnswerT:
        """Start a request and wait for its answer."""
        self.ask(request)
        return self.answer(request)

    def set_up(self) -> None:
        """Start the process if needed, and wait until it is set up.

        Raises
        ------
        Unavailable
            The process did not start.
        Exception
            Another exception of the set-up.
        """
        try:
            self.start()
            if self._is_set_up:
                return
            self.confinement = self.answer(self._setting)
        except ExhaustedError as error:
            raise Unavailable(f"A process could not be set up to read and compute. {error}") from error
        except Exception:
            self.end()  # otherwise it would wait for another setting, and the next request for an answer
            raise
        self._is_set_up = True

    def is_up(self) -> bool:
        """Whether a request would get its result or its error at once."""
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
        except Exception as error:  # the bundle passed its self-test before, so the machine is the cause
            raise Unavailable("A process could not be set up to read and compute.") from error

    def is_set_up(self) -> bool:
        """Whether the process that was started is set up, without waiting.

        Raises
        ------
        Exception
            An exception of the set-up; it is then not tried again.
        """
        if not self._is_set_up and self.has_answered():
            self.confinement = self.answer(self._setting)
            self._is_set_up = True
        return self._is_set_up

    def end(self) -> None:
        """End the process now, even during a request."""
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
        with contextlib.suppress(OSError):  # it has just died; the write below finds that out
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
