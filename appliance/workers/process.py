"""Processes that meet the files in the daemon's place: whatever a file does to one, the daemon lives on.

Each runs :mod:`workers.worker`, confined in memory, file size and time, and tied to the daemon by two pipes:
it ends when the daemon does. No socket is opened and nothing is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from lungstage.appliance.contract.errors import ExhaustedError, KilledError, Unavailable

Key = TypeVar("Key")

_START_SECONDS = 120.0
_END_SECONDS = 5.0
_PIPE_BYTES = 1024 * 1024  # what Linux lets anyone have


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process may take.

    Attributes
    ----------
    seconds
        For one request.
    memory
        Bytes of data (RLIMIT_DATA).
    file_size
        Bytes of any file that it writes; the steps write none but a compressed frame, in memory.
    """

    seconds: float = 120.0
    memory: int = 4 * 1024**3
    file_size: int = 16 * 1024**2


class WorkerProcess:
    """One process at work: takes one request at a time, and is made anew after it was ended.

    Parameters
    ----------
    setting
        What the process is set up with before the first request: :class:`workers.messages.Setting`.
    limits
        What it may take.
    started
        Told of each process that is started.
    """

    def __init__(self, setting: object, limits: Limits, started: Callable[[], None] = lambda: None) -> None:
        self._setting, self._limits, self._started = setting, limits, started
        self._process: subprocess.Popen[bytes] | None = None
        self._requests: Connection[Any, Any]
        self._answers: Connection[Any, Any]
        self._until = 0.0
        self._is_set_up = False

    @property
    def pid(self) -> int | None:
        """Number of the process, while there is one."""
        return None if self._process is None else self._process.pid

    @property
    def descriptor(self) -> int | None:
        """File descriptor that becomes readable when the answer is there, while one is awaited."""
        return self._answers.fileno() if self._process is not None else None

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
            command = [sys.executable, "-P", "-c", "from lungstage.appliance.workers.worker import main; main()"]
            command += map(str, (theirs_in, theirs_out, self._limits.memory, self._limits.file_size))
            self._process = subprocess.Popen(  # noqa: S603  (our own module)
                command,
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # there are several of them, for as many processors
            )
            ours.pop_all()
        with contextlib.suppress(OSError):  # so that no message has to wait until it is read; else it waits
            fcntl.fcntl(ours_out, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._requests, self._answers = Connection(ours_out, readable=False), Connection(ours_in, writable=False)
        self._started()
        self._is_set_up = False
        self._until = time.monotonic() + _START_SECONDS
        self._send(self._setting)

    def ask(self, step: str, *arguments: object, **keywords: object) -> None:
        """Hand over a request; :meth:`answer` gives what became of it.

        Raises
        ------
        Unavailable, OSError
            The process cannot be set up, which no request is to blame for.
        """
        self._come_up()
        self._until = time.monotonic() + self._limits.seconds
        try:
            self._send((step, arguments, keywords))
        except ExhaustedError:  # it had died before, of something else
            self._come_up()
            self._until = time.monotonic() + self._limits.seconds
            self._send((step, arguments, keywords))

    def has_answered(self) -> bool:
        """Whether :meth:`answer` would return, or raise, at once."""
        with contextlib.suppress(OSError):
            return self._answers.poll(0) or time.monotonic() >= self._until
        return True

    def answer(self) -> Any:
        """Wait for the answer to the request in hand, and return it.

        Raises
        ------
        ExhaustedError
            The process died, or was ended because it took too long.
        Exception
            Whatever the step raised; a defect of ours as :class:`DefectError`.
        """
        try:
            if not self._answers.poll(max(0.0, self._until - time.monotonic())):
                self.end()
                raise ExhaustedError(f"It took longer than {self._limits.seconds:g} s.")
            well, answer = self._answers.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error
        if well:
            return answer
        if isinstance(answer, MemoryError):
            self.end()
            raise ExhaustedError(f"It took more than {self._limits.memory // 1024**2} MB of memory.")
        raise answer

    def call(self, step: str, *arguments: object, **keywords: object) -> Any:
        """Hand over a request and wait for its answer."""
        self.ask(step, *arguments, **keywords)
        return self.answer()

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
            self.answer()
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
            self.answer()
            self._is_set_up = True
        return self._is_set_up

    def end(self) -> None:
        """End the process now, whatever it is at."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(_END_SECONDS)
        self._requests.close()
        self._answers.close()

    def _send(self, message: object) -> None:
        try:
            self._requests.send(message)
        except OSError as error:
            raise self._died() from error

    def _died(self) -> ExhaustedError:
        process = self._process
        status = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(_END_SECONDS)
        self.end()
        if status == -signal.SIGKILL:
            return KilledError("Its process was ended by SIGKILL.")
        if status is not None and status < 0:
            return ExhaustedError(f"Its process was ended by {signal.Signals(-status).name}.")
        return ExhaustedError(f"Its process ended with status {status}.")


class WorkerPool(Generic[Key]):
    """Several processes for requests that take long; each bears a key, and answers in its own time.

    Parameters
    ----------
    make
        Makes one that is not started.
    count
        How many there are; the second and later ones are started when they are first needed.
    """

    def __init__(self, make: Callable[[], WorkerProcess], count: int) -> None:
        self._idle = [make() for _ in range(count)]
        self._busy: dict[Key, WorkerProcess] = {}

    @property
    def keys(self) -> frozenset[Key]:
        """Keys of the requests in hand."""
        return frozenset(self._busy)

    @property
    def first(self) -> WorkerProcess:
        """The one that is asked first; none of them may be busy."""
        return self._idle[-1]

    def free(self) -> bool:
        """Whether a request can be taken at once; where none can, one more process is started meanwhile."""
        up = next((process for process in reversed(self._idle) if process.is_up()), None)
        if up is not None:
            self._idle.remove(up)
            self._idle.append(up)
        elif self._idle:
            try:
                self._idle[-1].start()
            except (ExhaustedError, OSError):  # told to whoever asks
                return True
        return up is not None

    def ask(self, key: Key, step: str, *arguments: object, **keywords: object) -> None:
        """Hand over a request, as :meth:`WorkerProcess.ask` does."""
        self._idle[-1].ask(step, *arguments, **keywords)
        self._busy[key] = self._idle.pop()

    def finished(self) -> Iterator[tuple[Key, Future[Any]]]:
        """Give each request that has come to an end: its key, and what became of it."""
        for key, process in list(self._busy.items()):
            if process.has_answered():
                yield key, self._take(key, process)

    def _take(self, key: Key, process: WorkerProcess) -> Future[Any]:
        became: Future[Any] = Future()
        try:
            became.set_result(process.answer())
        except Exception as error:
            became.set_exception(error)
        del self._busy[key]
        self._idle.append(process)
        return became

    def _awaited(self) -> list[WorkerProcess]:
        """Those that something will come from."""
        return [*self._busy.values(), *(process for process in self._idle if process.is_coming_up())]

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when an answer comes, or another process is set up."""
        return [d for process in self._awaited() if (d := process.descriptor) is not None]

    def next_due(self) -> float | None:
        """When the first of them has taken too long."""
        return min((process.due for process in self._awaited()), default=None)

    def end_idle(self) -> None:
        """End the processes that have nothing in hand."""
        for process in self._idle:
            process.end()

    def end(self) -> None:
        """End all processes."""
        for process in (*self._idle, *self._busy.values()):
            process.end()
