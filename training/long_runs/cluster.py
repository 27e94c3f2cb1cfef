"""Work spread over the workers of a Dask cluster that is there already."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lungstage.appliance.contract.errors import Unavailable

if TYPE_CHECKING:
    from distributed import Client

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_SECONDS: Final = 15.0
NO_WORKER_SECONDS: Final = 300.0
"""How long the scheduler may be without a worker: clusters that grow on demand need some minutes for their first."""

_AHEAD: Final = 2  # pieces of work per thread that the scheduler knows of, so that no thread waits for the next
_LOOK_SECONDS: Final = 1.0
_FETCH_SECONDS: Final = 30.0


def run(
    function: Callable[[Item], Result], items: Iterable[Item], *, address: str, no_worker_seconds: float | None = None
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to items on a Dask cluster.

    Only the scheduler is connected to; results come by way of it. It holds a few items per thread at a time, however
    many there are.

    Parameters
    ----------
    function
        Of a module that the workers can import; must not raise, nor return None.
    items
        What to apply it to; they and the results must be picklable.
    address
        Of the scheduler, e.g. ``tcp://host:8786``.
    no_worker_seconds
        How long to wait for a worker; :data:`NO_WORKER_SECONDS` unless given.

    Yields
    ------
    tuple
        Each item with its result, in the order in which they are done. The result is None where as many workers as
        the scheduler allows (``distributed.scheduler.allowed-failures``) were lost over the item, and as many again
        while it was the only one of ours in the cluster. The scheduler blames all that a lost worker had in hand, so
        the first verdict may hit a bystander.

    Raises
    ------
    Unavailable
        The scheduler does not answer, is lost, has no worker for too long, or the cluster cannot import `function`.
    """
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # one sentence of ours says it all
    patience = NO_WORKER_SECONDS if no_worker_seconds is None else no_worker_seconds
    try:
        client = Client(address, timeout=CONNECT_SECONDS, direct_to_workers=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise Unavailable(f"The Dask scheduler {address} does not answer.") from error
    suspects = []
    with client:
        try:
            for item, result in _spread(client, function, items, patience):
                if result is None:
                    suspects.append(item)
                else:
                    yield item, result
            for item in suspects:
                yield from _spread(client, function, [item], patience)
        except (OSError, CancelledError) as error:
            raise Unavailable(f"The Dask scheduler {address} was lost.") from error


def _spread(
    client: Client, function: Callable[[Item], Result], items: Iterable[Item], patience: float
) -> Iterator[tuple[Item, Result | None]]:
    waiting = iter(items)
    pending: dict[Any, Item] = {}
    last_worker = time.monotonic()
    while True:
        threads = sum(client.nthreads().values())  # type: ignore[no-untyped-call]
        if threads:
            last_worker = time.monotonic()
        elif time.monotonic() - last_worker > patience:
            raise Unavailable(f"The Dask scheduler has had no worker for {patience:.0f} s.")
        for item in itertools.islice(waiting, max(0, max(1, _AHEAD * threads) - len(pending))):
            pending[client.submit(function, item, pure=False)] = item
        if not pending:
            return
        for future, result in _done(pending):
            item = pending.pop(future)
            future.release()
            yield item, result


def _done(pending: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Wait for news for a while; futures with their results, None where the workers died over it."""
    from distributed import KilledWorker, wait

    try:
        news = wait(list(pending), timeout=_LOOK_SECONDS, return_when="FIRST_COMPLETED")  # type: ignore[no-untyped-call]
    except TimeoutError:
        return
    for future in news.done:
        result = None
        try:
            result = future.result(timeout=_FETCH_SECONDS)
        except TimeoutError:
            continue  # the worker that held it is gone; another one works it out again
        except KilledWorker:
            pass
        except (OSError, CancelledError):
            raise
        except Exception as error:  # not the function's, which raises none
            raise Unavailable(f"The cluster cannot run lungstage: {type(error).__name__}.") from error
        yield future, result
