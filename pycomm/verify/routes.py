"""V2: every message goes between ranks that can reach each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from pycomm.errors import Diagnostic
from pycomm.schedule import OpKind, Schedule
from pycomm.verify.findings import KIND, PEER, owners, rows_at_fault

__all__ = ["Reachability", "routes"]


class Reachability(Protocol):
    """What the check asks of a network."""

    def reachable(self, src: int, dst: int) -> bool:
        """Whether rank ``src`` can send to rank ``dst``."""


def routes(schedule: Schedule, topology: Reachability) -> Iterator[Diagnostic]:
    """Ask the network once about each pair of ranks; report the first send of a bad pair."""
    sends = np.flatnonzero(schedule.ops[:, KIND] == OpKind.SEND)
    pair = owners(schedule)[sends].astype(np.int64) * schedule.nranks + schedule.ops[sends, PEER]
    pairs, first = np.unique(pair, return_index=True)
    wrong = np.zeros(len(schedule.ops), np.bool_)
    for src_dst, index in zip(pairs.tolist(), first.tolist(), strict=True):
        src, dst = divmod(src_dst, schedule.nranks)
        if not topology.reachable(src, dst):
            wrong[sends[index]] = True
    yield from rows_at_fault(schedule, "V201", wrong, "the network has no route between the two ranks")
