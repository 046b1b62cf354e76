"""What the ranks of a group compare through its store before they go on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pycomm.backends.base import GroupConfig
from pycomm.errors import DeadlineExceeded, Mismatch
from pycomm.hosts import host_identity
from pycomm.schedule import Schedule

__all__ = ["Agreement"]


class Agreement:
    """Every method is collective; each value is exchanged once in the life of the group.

    Parameters
    ----------
    config
        The group.
    abort
        Ends the group, for the reason given: a rank has not come.
    """

    def __init__(self, config: GroupConfig, abort: Callable[[str], None]) -> None:
        self._config, self._abort = config, abort
        self._lock = threading.Lock()
        self._plans = 0
        self._host_numbers: tuple[int, ...] | None = None

    def hosts(self, timeout_s: float | None = None) -> tuple[int, ...]:
        """Host number of each rank, in order of first appearance; ``()`` when all share one."""
        if self._host_numbers is None:
            names = self.values("host", host_identity(), timeout_s)
            numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
            self._host_numbers = tuple(numbers[name] for name in names) if len(numbers) > 1 else ()
        return self._host_numbers

    def same_schedule(self, schedule: Schedule, timeout_s: float | None) -> None:
        """Compare a schedule's digest with the other ranks' before it first runs."""
        with self._lock:
            index, self._plans = self._plans, self._plans + 1
        mine = f"{schedule.name} for {schedule.kind.label}, digest {schedule.digest().hex()}".encode()
        config = self._config
        for rank, other in enumerate(self.values(f"plan/{index}", mine, timeout_s)):
            if other != mine:
                raise Mismatch(
                    f"group {config.name!r}: rank {config.rank} is about to run {mine.decode()}, rank {rank} "
                    f"{other.decode()}; ranks must make the same calls with the same settings"
                )

    def values(self, topic: str, value: bytes, timeout_s: float | None = None) -> list[bytes]:
        """Collect a value of every rank through the store; a rank that does not come is the group's end."""
        config = self._config
        if config.size == 1:
            return [value]
        config.store.set(f"{config.name}/{topic}/{config.rank}", value)
        limit_s = config.timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit_s
        values: list[bytes] = []
        for rank in range(config.size):
            left = max(0.0, deadline - time.monotonic())
            try:
                values.append(config.store.get(f"{config.name}/{topic}/{rank}", timeout_s=left))
            except DeadlineExceeded as error:
                failure = DeadlineExceeded(
                    f"group {config.name!r}: rank {rank} has not come within {limit_s:g} s to the call that "
                    f"rank {config.rank} makes (and waits to compare {topic})",
                    group=config.name,
                    ranks=(rank,),
                )
                self._abort(str(failure))
                raise failure from error
        return values
