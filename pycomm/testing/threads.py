"""Ranks as threads of this process, on a backend that can do that."""

from __future__ import annotations

import faulthandler
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from typing import TypeVar

from pycomm.backends.base import GroupConfig
from pycomm.backends.registry import get_backend
from pycomm.communicator import Communicator
from pycomm.errors import PycommError
from pycomm.store import MemoryStore

__all__ = ["RankError", "run_threads"]

T = TypeVar("T")


class RankError(PycommError):
    """Ranks failed or did not end.

    Attributes
    ----------
    errors : dict of int to BaseException or str
        What each failed rank raised.
    """

    def __init__(self, message: str, errors: Mapping[int, object]) -> None:
        super().__init__(message)
        self.errors = dict(errors)


def run_threads(
    n: int,
    target: Callable[[Communicator], T],
    backend: str = "reference",
    timeout_s: float = 30.0,
) -> list[T]:
    """Run ``target(comm)`` on ``n`` ranks that are threads; returns their results in rank order.

    Parameters
    ----------
    n
        Number of ranks.
    target
        What each rank does. A rank that raises aborts the group.
    backend
        A backend whose ranks may be threads of one process.
    timeout_s
        Deadline of the group's waits, and of the whole run.

    Raises
    ------
    RankError
        Ranks raised (the first one's exception is the cause) or did not end in time.
    """
    store = MemoryStore()
    provider = get_backend(backend)
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}
    order: list[int] = []

    def run(rank: int) -> None:
        config = GroupConfig("world", rank, n, tuple(range(n)), timeout_s, store)
        try:
            with Communicator(provider, config) as comm:
                results[rank] = target(comm)
        except BaseException as error:  # raised below, with the other ranks'
            errors[rank] = error
            order.append(rank)

    threads = [threading.Thread(target=run, args=(r,), name=f"rank-{r}", daemon=True) for r in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout_s)
    stuck = [r for r, thread in enumerate(threads) if thread.is_alive()]
    if stuck:
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        raise RankError(
            f"ranks {stuck} did not end within {timeout_s:g} s; their stacks are on stderr", errors
        )
    if errors:
        shown = "".join(
            f"\n--- rank {r} ---\n" + "".join(traceback.format_exception(errors[r])) for r in sorted(errors)
        )
        raise RankError(f"{len(errors)} of {n} ranks failed:{shown}", errors) from errors[order[0]]
    return [results[r] for r in range(n)]
