"""Several processes for requests that take long."""

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
        self._busy: dict[Key, tuple[WorkerProcess, Request[AnswerT]]] = {}

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

    def ask(self, key: Key, request: Request[AnswerT]) -> None:
        """Hand over a request, as :meth:`WorkerProcess.ask` does."""
        self._idle[-1].ask(request)
        self._busy[key] = self._idle.pop(), request

    def finished(self) -> Iterator[tuple[Key, Future[AnswerT]]]:
        """Give each request that has come to an end: its key, and what became of it."""
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
        """Those that something will come from."""
        busy = (process for process, _ in self._busy.values())
        return [*busy, *(process for process in self._idle if process.is_coming_up())]

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
        self.end_idle()
        for process, _ in self._busy.values():
            process.end()
