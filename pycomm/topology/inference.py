"""A network from rates that were measured at its ends: switch, racks with trunks, or cables between hosts.

Four matrices and vectors say almost everything (rows are senders):

* ``alone[i, j]``: the rate from i to j when nothing else moves;
* ``leaving[i]``, ``entering[j]``: what i sends to all others at once, what j receives from all at once;
* ``together[i, j]``: the rates when everybody sends to everybody.

One switch explains them if a flow alone gets what its two ends can do, and all together share what their
ends can do (computed as a max-min fair division). Where pairs fall into two kinds, those that get their share
and those that do not, the first kind are racks, and what leaves a rack is a trunk. Where not even neighbours
get what their ends can do, there is no switch: ends have several cables, and each pair uses one of them.
Which pairs share a cable is measured separately.

A trunk that is not full when all send to all at once does not show, and is not found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

__all__ = ["cables", "fair", "is_switchless", "racks", "rounded"]

Rates = npt.NDArray[np.float64]

FULL = 0.8
"""A flow that gets this part of what its ends can do is not held up between them."""
GAP = 1.25
"""Pairs are of two kinds when the shares of the one exceed those of the other by this factor."""
ALIKE = 0.12
"""Rates that differ by less are taken for equal."""


def fair(flows: Sequence[tuple[int, int]], leaving: Rates, entering: Rates) -> Rates:
    """Divide the rates of ends among flows, max-min fairly, as one switch would.

    Returns
    -------
    float64 array
        The rate of each flow.

    References
    ----------
    D. Bertsekas, R. Gallager, "Data Networks", 2nd edition, 1992, section 6.5.2.
    """
    ends = [(("out", a), ("in", b)) for a, b in flows]
    left = {("out", a): float(leaving[a]) for a, _ in flows}
    left |= {("in", b): float(entering[b]) for _, b in flows}
    rates = np.zeros(len(flows))
    open_flows = set(range(len(flows)))
    while open_flows:
        users = {end: sum(end in ends[f] for f in open_flows) for end in left}
        narrow = min((left[end] / count, end) for end, count in users.items() if count)
        for f in sorted(open_flows):
            if narrow[1] in ends[f]:
                rates[f] = narrow[0]
                open_flows.discard(f)
                for end in ends[f]:
                    left[end] = max(0.0, left[end] - narrow[0])
    return rates


def is_switchless(alone: Rates, leaving: Rates, entering: Rates) -> bool:
    """Whether most ends have no other with which they get what the two can do."""
    n = len(leaving)
    best = [max(alone[i, j] / min(leaving[i], entering[j]) for j in range(n) if j != i) for i in range(n)]
    return n > 2 and 2 * sum(share < FULL for share in best) > n


def racks(alone: Rates, together: Rates, leaving: Rates, entering: Rates) -> tuple[tuple[int, ...], ...]:
    """Divide the ends into racks by the shares that pairs get; one rack when they do not fall into two kinds.

    First by flows alone, which shows trunks that are slower than one end; then by all together, which shows
    those that are slower than all.
    """
    n = len(leaving)
    everybody = (tuple(range(n)),)
    if n < 3:
        return everybody
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    own = np.array([min(leaving[i], entering[j]) for i, j in pairs])
    for got, wanted in (
        (np.array([alone[pair] for pair in pairs]), own),
        (np.array([together[pair] for pair in pairs]), fair(pairs, leaving, entering)),
    ):
        share = np.zeros((n, n))
        for (i, j), part in zip(pairs, got / np.maximum(wanted, 1.0), strict=True):
            share[i, j] = part
        found = _divided((share + share.T) / 2)
        if len(found) > 1:
            return found
    return everybody


def _divided(share: Rates) -> tuple[tuple[int, ...], ...]:
    """Put ends together whose pairs have the greater shares, if all other pairs have the lesser ones."""
    n = len(share)
    values = sorted(float(share[i, j]) for i in range(n) for j in range(i))
    gaps = [(after / max(before, 1e-9), before, after) for before, after in pairwise(values)]
    for gap, before, after in sorted(gaps, reverse=True):
        if gap < GAP:
            break
        border = (before * after) ** 0.5
        groups = _connected(n, [(i, j) for i in range(n) for j in range(i) if share[i, j] > border])
        inside = all(share[i, j] > border for group in groups for i in group for j in group if i > j)
        if inside and 1 < len(groups) < n:
            return groups
    return (tuple(range(n)),)


def _connected(n: int, pairs: Iterable[tuple[int, int]]) -> tuple[tuple[int, ...], ...]:
    group = list(range(n))
    for i, j in pairs:
        old, new = group[i], group[j]
        group = [new if g == old else g for g in group]
    return tuple(tuple(i for i in range(n) if group[i] == g) for g in dict.fromkeys(group))


def cables(
    n: int,
    leaving_shared: Mapping[tuple[int, int, int], bool],
    entering_shared: Mapping[tuple[int, int, int], bool],
) -> tuple[tuple[int, int], ...]:
    """Find the pairs that a cable joins, from which flows share one.

    Parameters
    ----------
    n
        How many ends.
    leaving_shared
        Whether flows from i to j and from i to k share a cable, by ``(i, j, k)``, j < k.
    entering_shared
        Whether flows from i to k and from j to k do, by ``(k, i, j)``, i < j.

    Returns
    -------
    tuple of pairs
        Directed. From i to j leads a cable unless there is an m by which i reaches j: flows to m and to j
        share the way out of i, and flows from i and from m to j the way in. Only what is found both ways is
        a cable: a cable carries both, and measurements err. Empty when they do not join all ends: then these
        are no cables.
    """

    def shares(table: Mapping[tuple[int, int, int], bool], end: int, a: int, b: int) -> bool:
        return table.get((end, min(a, b), max(a, b)), False)

    found = {
        (i, j)
        for i in range(n)
        for j in range(n)
        if i != j
        and not any(
            shares(leaving_shared, i, m, j) and shares(entering_shared, j, i, m)
            for m in range(n)
            if m not in (i, j)
        )
    }
    joined = sorted((i, j) for i, j in found if (j, i) in found)
    return tuple(joined) if len(_connected(n, joined)) == 1 else ()


def rounded(rates: Iterable[float]) -> dict[float, int]:
    """Take rates that hardly differ for equal, and keep two digits: plans on them stay small.

    Examples
    --------
    >>> rounded([9.9e6, 10.3e6, 41e6])
    {9900000.0: 10000000, 10300000.0: 10000000, 41000000.0: 41000000}
    """
    given = sorted(set(rates))
    result: dict[float, int] = {}
    group: list[float] = []
    for rate in [*given, float("inf")]:
        if group and rate > group[0] * (1 + ALIKE):
            mean = sum(group) / len(group)
            digits = 10 ** max(0, len(str(int(mean))) - 2)
            value = max(1, round(mean / digits) * digits)
            result |= dict.fromkeys(group, value)
            group = []
        group.append(rate)
    return result
