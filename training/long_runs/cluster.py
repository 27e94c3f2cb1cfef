"""Run work on an existing Dask cluster."""

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
"""Longest time without a worker: clusters that start workers on demand need some minutes for the first."""

_AHEAD: Final = 2  # pieces of work per thread at the scheduler, so that no thread waits for the next one
_LOOK_SECONDS: Final = 1.0
_FETCH_SECONDS: Final = 30.0


def run(
    function: Callable[[Item], Result], items: Iterable[Item], *, address: str, no_worker_seconds: float | None = None
) -> Iterator[tuple[Item, Result | None]]:
    """Apply a function to items on a Dask cluster.

    Only the scheduler is connected, and results come through it. It gets a few items per thread at a time.

    Parameters
    ----------
    function
        A function of a module that the workers can import. It must not raise an error or return None.
    items
        Items to apply it to; they and the results must be picklable.
    address
        Address of the scheduler, e.g. ``tcp://host:8786``.
    no_worker_seconds
        How long to wait for a worker; default :data:`NO_WORKER_SECONDS`.

    Yields
    ------
    tuple
        Each item with its result, in the order in which they finish. The result is None if as many workers as the
        scheduler allows (``distributed.scheduler.allowed-failures``) were lost on the item, and again as many while it
        was the only item of this run. The second try is needed because the scheduler counts a lost worker against all
        items that the worker had.

    Raises
    ------
    Unavailable
        The scheduler does not answer, its connection is lost, it has no worker for too long, or the cluster cannot
        import `function`.
    """
    from distributed import Client

    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # the messages below are enough
    patience = NO_WORKER_SECONDS if no_worker_seconds is None else no_worker_seconds
    try:
        client = Client(address, timeout=CONNECT_SECONDS, direct_to_workers=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise Unavailable(
            f"The Dask scheduler {address} does not answer. Check the address, and that the scheduler runs."
        ) from error
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
            raise Unavailable(
                f"The connection to the Dask scheduler {address} was lost. Run the same command again to continue."
            ) from error


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
            raise Unavailable(
                f"The Dask scheduler has had no worker for {patience:.0f} s. Start workers, and run the command again."
            )
        for item in itertools.islice(waiting, max(0, max(1, _AHEAD * threads) - len(pending))):
            pending[client.submit(function, item, pure=False)] = item
        if not pending:
            return
        for future, result in _done(pending):
            item = pending.pop(future)
            future.release()
            yield item, result


def _done(pending: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Wait a short time for finished futures; yield them with their results, None if the workers died."""
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
            continue  # the worker with the result is gone; another one computes it again
        except KilledWorker:
            pass
        except (OSError, CancelledError):
            raise
        except Exception as error:  # not an error of the function, which raises none
            raise Unavailable(
                f"The cluster cannot run lungstage ({type(error).__name__}). Install this version on every worker."
            ) from error
        yield future, result
