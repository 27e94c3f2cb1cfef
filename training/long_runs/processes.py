"""Work spread over processes of this machine, any of which may be killed without harm to the rest.

``concurrent.futures``' pool breaks as a whole when one of its processes dies, and does not say over what. Here each
process has one piece of work at a time and pipes of its own, so that a death has one cause. It is started by a line of
its own, because multiprocessing would have it import the command line again, and torch with it.
"""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import wait
from queue import SimpleQueue
from typing import Any, Final, TypeVar, cast

from lungstage.appliance.config.offline import without_requests
from lungstage.appliance.contract.errors import Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS: Final = 3
"""Processes that may die over a piece of work before it is put off until it can be tried alone."""

_START: Final = (
    "import sys; sys.path[:] = sys.argv[1:]; from lungstage.training.long_runs.processes import serve; serve()"
)
_STARTED: Final = b"\n"
# One study a process is all the parallelism that is wanted: threads on top would only fight for the cores.
_ENVIRONMENT: Final = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to items in processes of their own.

    Parameters
    ----------
    function
        Of a module, so that a process can import it; must not raise, nor return None.
    items
        What to apply it to; they and the results must be picklable.
    workers
        Processes at a time.

    Yields
    ------
    tuple
        Each item with its result, in the order in which they are done. The result is None where :data:`ATTEMPTS`
        processes died over the item, and another one while it was the only one at work: then neither a neighbour nor
        want of memory for two can be to blame.

    Raises
    ------
    Unavailable
        Where processes cannot be started.
    """
    suspects = []
    for item, result in _spread(function, items, workers, ATTEMPTS):
        if result is None:
            suspects.append(item)
        else:
            yield item, result
    for item in suspects:
        yield from _spread(function, [item], 1, 1)


def _spread(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, attempts: int
) -> Iterator[tuple[Item, Result | None]]:
    waiting = deque((item, 0) for item in items)
    busy: dict[_Process, tuple[Item, int]] = {}
    idle: list[_Process] = []
    failed_starts = 0
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                process = idle.pop() if idle else _Process(function)
                busy[process] = waiting.popleft()
                process.give(busy[process][0])
            for process in cast("list[_Process]", wait(list[Any](busy))):
                try:
                    if not process.started:
                        process.greet()
                        failed_starts = 0
                        continue
                    result = process.take()
                except (EOFError, pickle.UnpicklingError):
                    process.stop()
                    item, deaths = busy.pop(process)
                    if not process.started:  # it never had a look at the item
                        failed_starts += 1
                        if failed_starts > ATTEMPTS:
                            raise Unavailable("Worker processes end before they have started.") from None
                    else:
                        deaths += 1
                    if deaths < attempts:
                        waiting.append((item, deaths))
                    else:
                        yield item, None
                else:
                    idle.append(process)
                    yield busy.pop(process)[0], result
    finally:
        for process in (*busy, *idle):
            process.stop()


class _Process:
    """A process that applies `function` to one item after another.

    Attributes
    ----------
    started
        Whether it has said that it is ready.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._popen = subprocess.Popen(  # noqa: S603  (our own command)
            [sys.executable, "-P", "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,  # Ctrl-C is for us; the process ends when its pipe does
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._to, self._from = self._popen.stdin, self._popen.stdout
        self.started = False
        self.give(function)

    def fileno(self) -> int:
        """Descriptor that can be read from when there is news, or when the process is dead."""
        return self._from.fileno()

    def give(self, item: object) -> None:
        """Hand over the next item."""
        with suppress(BrokenPipeError):  # it is dead, as the next look will tell
            pickle.dump(item, self._to)
            self._to.flush()

    def greet(self) -> None:
        """Read the sign that it has started; EOFError where it died instead."""
        # Not through the buffer, which could swallow part of a result behind the selector's back.
        if os.read(self.fileno(), 1) != _STARTED:
            raise EOFError
        self.started = True

    def take(self) -> Any:
        """Read a result; EOFError or UnpicklingError where the process died over it."""
        return pickle.load(self._from)  # noqa: S301  (from our own process)

    def stop(self) -> None:
        """End it at once; it has nothing to lose."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._to, self._from):
            with suppress(BrokenPipeError):
                pipe.close()


def serve() -> None:
    """Be such a process: take a function and its items from stdin, and write its results to stdout."""
    without_requests()
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints must not come between results
    logging.getLogger().handlers = [logging.NullHandler()]  # libraries' messages quote the files they read
    logging.captureWarnings(True)
    items: SimpleQueue[Any] = SimpleQueue()
    function = pickle.load(sys.stdin.buffer)  # noqa: S301  (from our own parent)
    results.write(_STARTED)
    results.flush()
    threading.Thread(target=_receive, args=(items,), daemon=True).start()
    while True:
        pickle.dump(function(items.get()), results)
        results.flush()


def _receive(items: SimpleQueue[Any]) -> None:
    """Take items from stdin until the other end is gone, and end the process with it, in mid-work as well."""
    try:
        while True:
            items.put(pickle.load(sys.stdin.buffer))  # noqa: S301  (from our own parent)
    finally:
        os._exit(0)
