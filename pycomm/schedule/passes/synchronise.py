"""Let nobody end a collective before everybody has begun it.

In a broadcast the root is done when it has sent; if a rank disagrees about the call, the root would never
learn it, and ranks that disagree about the root all wait for one another without a message on its way. Here
every rank begins with ceil(log2 n) rounds of signals, in round k to the rank 2^k after it: whoever has got
its last signal has heard, directly or through others, that everybody makes the same call. Data does not wait
for the signals, only the end of the call does.

References
----------
D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier synchronization", Int. J. Parallel Programming
17(1), 1988.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pycomm.schedule.ir import NCOLUMNS, OpKind, Schedule

__all__ = ["synchronise"]


def synchronise(schedule: Schedule) -> Schedule:
    """Add rounds of signals on a channel of their own to the beginning of every program.

    Adds ``ceil(log2 n)`` messages without content to each rank, and at most as many steps.
    """
    n = schedule.nranks
    rounds = (n - 1).bit_length()
    if rounds == 0:
        return schedule
    head = np.full((n, 2 * rounds, NCOLUMNS), -1, np.int32)
    hops = 1 << np.arange(rounds)
    rank = np.arange(n)[:, None]
    for at, kind, peer in ((0, OpKind.SEND, rank + hops), (1, OpKind.RECV, rank - hops)):
        head[:, at::2, 0] = kind
        head[:, at::2, 1] = peer % n
    head[:, :, 2] = schedule.channels
    head[:, :, 7] = 0
    programs = [part for r in range(n) for part in (head[r], schedule.program(r))]
    return replace(
        schedule,
        channels=schedule.channels + 1,
        ops=np.concatenate(programs),
        offsets=schedule.offsets + 2 * rounds * np.arange(n + 1),
        _digest=[],
    )
