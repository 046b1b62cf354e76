"""Networks from rates at their ends: rates are those of ideal networks, with and without noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pycomm.probe.measure import rounds_of
from pycomm.topology.inference import Rates, cables, fair, is_switchless, racks, rounded

NOISE = [0.0, 0.08]


def noisy(values: Rates, part: float) -> Rates:
    return values * (1 + part * np.random.default_rng(7).uniform(-1, 1, values.shape))


def switched(leaving: list[float], groups: list[list[int]], trunk: float) -> tuple[Rates, Rates, Rates]:
    """Alone and together rates of racks whose trunks carry ``trunk``: each flow gets its fair share."""
    n = len(leaving)
    rack = [next(g for g, group in enumerate(groups) if i in group) for i in range(n)]
    ends = np.array(leaving)
    alone, together = np.zeros((n, n)), np.zeros((n, n))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    for i, j in pairs:
        alone[i, j] = min(ends[i], ends[j], np.inf if rack[i] == rack[j] else trunk)
    share = dict(zip(pairs, fair(pairs, ends, ends), strict=True))
    crossing = {g: sum(rack[i] == g != rack[j] for i, j in pairs) for g in range(len(groups))}
    for i, j in pairs:
        far = rack[i] != rack[j]
        together[i, j] = min(share[i, j], trunk / crossing[rack[i]]) if far else share[i, j]
    return alone, together, ends


def test_fair_division() -> None:
    ends = np.array([10.0, 10.0, 2.0])
    rates = fair([(0, 1), (0, 2), (1, 2)], ends, ends)
    assert rates.tolist() == [9.0, 1.0, 1.0]


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("ends", [[100.0] * 4, [100.0, 100.0, 100.0, 25.0], [400.0, 100.0, 100.0]])
def test_one_switch(ends: list[float], noise: float) -> None:
    alone, together, rates = switched(ends, [list(range(len(ends)))], np.inf)
    alone, together = noisy(alone, noise), noisy(together, noise)
    assert not is_switchless(alone, rates, rates)
    assert racks(alone, together, rates, rates) == (tuple(range(len(ends))),)


@pytest.mark.parametrize("noise", NOISE)
@pytest.mark.parametrize("trunk", [25.0, 100.0])
@pytest.mark.parametrize("groups", [[[0, 1], [2, 3]], [[0, 2, 4], [1, 3, 5]], [[0, 1], [2, 3], [4, 5]]])
def test_racks_with_trunks(groups: list[list[int]], trunk: float, noise: float) -> None:
    """Trunks slower than one host, and as fast as one: those only all together show."""
    n = sum(map(len, groups))
    alone, together, rates = switched([100.0] * n, groups, trunk)
    alone, together = noisy(alone, noise), noisy(together, noise)
    assert not is_switchless(alone, rates, rates)
    assert racks(alone, together, rates, rates) == tuple(map(tuple, groups))


def ways_round(n: int) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Cables of each pair's shorter way round a ring; the first neighbour's where both are equally long."""
    ways = {}
    for i, j in itertools.permutations(range(n), 2):
        step = 1 if (j - i) % n <= n // 2 else -1
        stops = [(i + k * step) % n for k in range((step * (j - i)) % n + 1)]
        ways[i, j] = list(itertools.pairwise(stops))
    return ways


@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_ring_of_cables(n: int) -> None:
    ways = ways_round(n)
    alone = np.array([[0.0 if i == j else 100.0 for j in range(n)] for i in range(n)])
    both = np.full(n, 200.0)
    assert is_switchless(alone, both, both)

    def shares(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return bool(set(ways[a]) & set(ways[b]))

    triples = [(e, a, b) for e in range(n) for a, b in itertools.combinations(set(range(n)) - {e}, 2)]
    found = cables(
        n,
        {(e, a, b): shares((e, a), (e, b)) for e, a, b in triples},
        {(e, a, b): shares((a, e), (b, e)) for e, a, b in triples},
    )
    assert set(found) == {pair for i in range(n) for pair in ((i, (i + 1) % n), ((i + 1) % n, i))}


def test_cables_that_do_not_join_all_ends_are_none() -> None:
    """As spoilt measurements say: only ends 2 and 3 seem to have a cable of their own."""
    leaving = {(end, i, j): True for end in range(2) for j in range(4) for i in range(j) if end not in (i, j)}
    entering = {
        (end, i, j): True for end in range(4) for j in range(4) for i in range(j) if end not in (i, j)
    }
    assert cables(4, leaving, entering) == ()


def test_rates_that_hardly_differ_are_one() -> None:
    found = rounded([24.6e6, 25.1e6, 23.9e6, 6.1e6, 6.24e6, 123.0])
    assert found[24.6e6] == found[25.1e6] == found[23.9e6] == 25_000_000
    assert found[6.1e6] == found[6.24e6] == 6_200_000
    assert found[123.0] == 120
    assert rounded([]) == {}


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_rounds_of_pairs(n: int) -> None:
    rounds = rounds_of(n)
    assert sorted(itertools.chain(*rounds)) == list(itertools.combinations(range(n), 2))
    for pairs in rounds:
        ranks = list(itertools.chain(*pairs))
        assert len(set(ranks)) == len(ranks)
    assert len(rounds) == n - 1 + n % 2
