"""A pool of processes for long requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from lungstage.appliance.contract.errors import ExhaustedError
from lungstage.appliance.workers.messages import Request
from lungstage.appliance.workers.process import WorkerProcess

Key = TypeVar("Key")
AnswerT = TypeVar("AnswerT")


class WorkerPool(Generic[Key, AnswerT]):
    """Several processes for long requests; each request has a key, and they may finish in any order.

    Parameters
    ----------
    make
        Makes a process that is not started.
    count
        Number of processes; the second and later ones start when they are first needed.
    """

    def __init__(self, make: Callable[[], WorkerProcess], count: int) -> None:
        self._idle = [make() for _ in range(count)]
        self._busy: dict[Key, tuple[WorkerProcess, Request[AnswerT]]] = {}

    @property
    def keys(self) -> frozenset[Key]:
        """Keys of the requests being processed."""
        return frozenset(self._busy)

    @property
    def first(self) -> WorkerProcess:
        """The process that gets the first request; only while no process is busy."""
        return self._idle[-1]

    def free(self) -> bool:
        """Whether a request can be started at once; if not, start one more process for the next time."""
        up = next((process for process in reversed(self._idle) if process.is_up()), None)
        if up is not None:
            self._idle.remove(up)
            self._idle.append(up)
        elif self._idle:
            try:
                self._idle[-1].start()
            except (ExhaustedError, OSError):  # the next `ask` raises it
                return True
        return up is not None

    def ask(self, key: Key, request: Request[AnswerT]) -> None:
        """Start a request, as :meth:`WorkerProcess.ask` does."""
        self._idle[-1].ask(request)
        self._busy[key] = self._idle.pop(), request

    def finished(self) -> Iterator[tuple[Key, Future[AnswerT]]]:
        """Give each finished request: its key and its result."""
        for key, (process, request) in list(self._busy.items()):
            if process.has_answered():
                yield key, self._take(key, process, request)

    def _take(self, key: Key, process: WorkerProcess, request: Request[AnswerT]) -> Future[AnswerT]:
        became: Future[AnswerT] = Future()
        try:
            became.set_result(process.answer(request))
        except Exception as error:
            became.set_exception(error)
        del self._busy[key]
        self._idle.append(process)
        return became

    def _awaited(self) -> list[WorkerProcess]:
        """Return the processes from which something will come."""
        busy = (process for process, _ in self._busy.values())
        return [*busy, *(process for process in self._idle if process.is_coming_up())]

    def descriptors(self) -> list[int]:
        """File descriptors that become readable when an answer arrives, or a process is ready."""
        return [d for process in self._awaited() if (d := process.descriptor) is not None]

    def next_due(self) -> float | None:
        """When the first request exceeds its time."""
        return min((process.due for process in self._awaited()), default=None)

    def end_idle(self) -> None:
        """End the processes without a request."""
        for process in self._idle:
            process.end()

    def end(self) -> None:
        """End all processes."""
        self.end_idle()
        for process, _ in self._busy.values():
            process.end()
