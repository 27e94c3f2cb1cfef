"""Run work in several processes of this machine. If one is killed, the others continue.

The pool of ``concurrent.futures`` breaks completely when one of its processes dies, and does not say on which item.
Here each process has one item at a time and its own pipes, so the item is known. Processes are started with a separate
command line, because multiprocessing would import the command line again, and torch with it.
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
"""Number of processes that may die on an item before it is postponed and tried alone."""

_START: Final = (
    "import sys; sys.path[:] = sys.argv[1:]; from lungstage.training.long_runs.processes import serve; serve()"
)
_STARTED: Final = b"\n"
# One item per process is enough parallelism; additional threads would only compete for the cores.
_ENVIRONMENT: Final = {"ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS": "1", "OMP_NUM_THREADS": "1"}


def run(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to items in separate processes.

    Parameters
    ----------
    function
        A function of a module, so that a process can import it. It must not raise an error or return None.
    items
        Items to apply it to; they and the results must be picklable.
    workers
        Number of processes at a time.

    Yields
    ------
    tuple
        Each item with its result, in the order in which they finish. The result is None if :data:`ATTEMPTS` processes
        died on the item, and one more that ran alone. Then another process, or too little memory for two, cannot be the
        cause.

    Raises
    ------
    Unavailable
        Processes cannot be started.
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
                    if not process.started:  # it never read the item
                        failed_starts += 1
                        if failed_starts > ATTEMPTS:
                            raise Unavailable(
                                "Worker processes end before they have started. Check the free memory, and try again "
                                "with fewer --workers."
                            ) from None
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
        Whether the process has reported that it is ready.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._popen = subprocess.Popen(  # noqa: S603  (our own command)
            [sys.executable, "-P", "-c", _START, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | _ENVIRONMENT,
            start_new_session=True,  # Ctrl-C stops the parent only; the process ends when its pipe closes
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._to, self._from = self._popen.stdin, self._popen.stdout
        self.started = False
        self.give(function)

    def fileno(self) -> int:
        """Descriptor that becomes readable when there is a result, or when the process is dead."""
        return self._from.fileno()

    def give(self, item: object) -> None:
        """Send the next item."""
        with suppress(BrokenPipeError):  # the process is dead, which the next read detects
            pickle.dump(item, self._to)
            self._to.flush()

    def greet(self) -> None:
        """Read the byte that reports the start; EOFError if the process died."""
        # Read without the buffer, which could hold part of a result that the selector then does not see.
        if os.read(self.fileno(), 1) != _STARTED:
            raise EOFError
        self.started = True

    def take(self) -> Any:
        """Read a result; EOFError or UnpicklingError if the process died."""
        return pickle.load(self._from)  # noqa: S301  (from our own process)

    def stop(self) -> None:
        """Kill the process. It has no state to save."""
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._to, self._from):
            with suppress(BrokenPipeError):
                pipe.close()


def serve() -> None:
    """Run as a worker process: read a function and its items from stdin, and write the results to stdout."""
    without_requests()
    results = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # output of libraries must not mix with the results
    logging.getLogger().handlers = [logging.NullHandler()]  # messages of libraries can quote patient data
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
    """Read items from stdin until the pipe closes, and then end the process, even during work."""
    try:
        while True:
            items.put(pickle.load(sys.stdin.buffer))  # noqa: S301  (from our own parent)
    finally:
        os._exit(0)
