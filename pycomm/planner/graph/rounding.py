"""Fractions of data and of links rounded to whole units, such that switches stay balanced.

Rounding each share by itself would let more into a switch than out of it, and no tree uses the surplus. Take
the arcs whose share is not whole. No switch has just one of them, because its total is whole; so they contain
a cycle (all ranks count as one place, where nothing has to balance). Pushing a little round the cycle changes
no total and makes one more share whole. Each share ends up at the whole number below or above.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from pycomm.planner.graph.network import Network

__all__ = ["apportioned", "whole_shares"]

_Ints = npt.NDArray[np.int64]


def apportioned(weights: Sequence[Fraction], units: int) -> _Ints:
    """Divide units in proportion to weights: the largest remainders get what rounding down leaves.

    Examples
    --------
    >>> apportioned([Fraction(1), Fraction(2), Fraction(0)], 4).tolist()
    [1, 3, 0]
    """
    total = sum(weights, Fraction(0))
    exact = [weight * units / total for weight in weights]
    whole = [int(value) for value in exact]
    order = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for i in order[: units - sum(whole)]:
        whole[i] += 1
    return np.array(whole, np.int64)


def whole_shares(network: Network, shares: Sequence[int], unit: int) -> _Ints:
    """Round shares of the arcs up or down; every vertex that is no rank still lets out what it takes in.

    Parameters
    ----------
    network
        The arcs.
    shares, unit
        The share of each arc is ``shares[arc] / unit``, balanced at every vertex that is no rank.
    """
    whole = [share // unit for share in shares]
    rest = [share % unit for share in shares]
    # One place for all ranks; ends[arc] is where it leads from and to.
    place = [max(0, v - network.nranks + 1) for v in range(network.nvertices)]
    ends = [(place[a], place[b]) for a, b in zip(network.src.tolist(), network.dst.tolist(), strict=True)]
    touching: dict[int, dict[int, None]] = {}
    for arc, remainder in enumerate(rest):
        if remainder:
            for v in ends[arc]:
                touching.setdefault(v, {})[arc] = None
    for arc in range(len(rest)):
        while rest[arc]:
            cycle = _cycle(arc, ends, touching)
            _push(cycle, rest, whole, unit)
            for number, _ in cycle:
                if not rest[number]:
                    for v in ends[number]:
                        touching[v].pop(number, None)
    return np.array(whole, np.int64)


def _cycle(
    arc: int, ends: list[tuple[int, int]], touching: dict[int, dict[int, None]]
) -> list[tuple[int, int]]:
    """Walk along shares that are not whole until a place comes twice: arcs, and 1 or -1 (backwards)."""
    walk: list[tuple[int, int]] = []
    seen: dict[int, int] = {}
    at, step = ends[arc][0], arc
    while at not in seen:
        seen[at] = len(walk)
        forwards = ends[step][0] == at
        walk.append((step, 1 if forwards else -1))
        at = ends[step][1 if forwards else 0]
        if at in seen:
            break
        step = next(number for number in touching[at] if number != step)
    return walk[seen[at] :]


def _push(cycle: list[tuple[int, int]], rest: list[int], whole: list[int], unit: int) -> None:
    """Change the shares round a cycle by as little as makes one of them whole."""
    along = min(unit - rest[arc] if sign > 0 else rest[arc] for arc, sign in cycle)
    against = min(rest[arc] if sign > 0 else unit - rest[arc] for arc, sign in cycle)
    change = along if along <= against else -against
    for arc, sign in cycle:
        more, rest[arc] = divmod(rest[arc] + sign * change, unit)
        whole[arc] += more
