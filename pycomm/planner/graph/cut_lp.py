"""The linear programme of shared links: how much data, from which roots, over which share of each arc.

Data of weight ``x[r]`` start at each rank ``r`` and every rank has to get all of them, over a share ``f`` of
each arc's capacity. Trees that do it exist if and only if each set of vertices that lacks a rank lets out
what its own ranks hold (Edmonds), and no switch takes in more of ``f`` than it lets out or less. So, for one
or two such *halves* (a broadcast along the arcs, a reduction against them) that share the arcs:

    maximise sum(x)   subject to   out_f(S) >= x(S)         for every half and every S that lacks a rank
                                   in_f(w) == out_f(w)      for every half and every vertex w that is no rank
                                   sum of f over halves <= capacity

There are too many sets to write down, so they are added on demand: max-flows find those that the present
solution breaks. Alike ranks and arcs share one unknown (:mod:`~pycomm.planner.graph.symmetry`).

HiGHS solves it in floating point (:mod:`~pycomm.planner.graph.cut_master`). The vertex that it finds is then
solved exactly, and so is its dual (:mod:`~pycomm.planner.graph.cut_exact`): weights on cuts that cover each
rank at least once, whose total capacity bounds every solution. Both are checked in whole numbers, whatever
the solver said; when they meet, the value is exact. When they do not (a numerically hard programme), the two
are a proved interval. What is asked and answered is in :mod:`~pycomm.planner.graph.cut_programme`.

References
----------
* J. Edmonds: Edge-disjoint branchings. In: Combinatorial Algorithms, 1973.
* J. Bang-Jensen, A. Frank, B. Jackson: Preserving and increasing local edge-connectivity in mixed graphs.
  SIAM Journal on Discrete Mathematics 8, 1995 (switches whose in and out agree can be split off).
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.graph.cut_exact import GRID, exact_point, proof
from pycomm.planner.graph.cut_master import Master, Vertex
from pycomm.planner.graph.cut_programme import Programme, Solution
from pycomm.planner.graph.network import Network

__all__ = ["broken_cuts", "solve"]

_MAX_ROUNDS = 400

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]


def solve(programme: Programme) -> Solution:
    """Solve a programme, adding cuts until none is broken; then prove the value.

    Raises
    ------
    InternalError
        HiGHS gives up, or rounds do not end.
    """
    master = Master(programme, programme.merged_columns())
    vertex: Vertex | None = None
    simple = True
    for rounds in range(1, _MAX_ROUNDS + 1):
        if vertex is None:
            vertex = master.best()
            if vertex.value <= 0:
                return _nothing(master, vertex, rounds)
            certificate, upper = proof(master, vertex, simple=simple)
        point = master.even(vertex.value, upper)
        if point is None:  # the cuts since then forbid this much data
            vertex = None
            continue
        values = point.values(master.nunknown)
        grid = GRID / float(values[: master.ncolumn] @ master.gain)
        if _add_broken(master, [round(v) for v in (values * grid).tolist()], 1e-9):
            continue
        exact = exact_point(master, point)
        if exact is None and simple:  # rounding may have missed the optimum by a hair: solve for it
            simple, vertex = False, None
            continue
        unit = math.lcm(*(value.denominator for value in exact or ()))
        whole = [int(value * unit) for value in exact or ()]
        if exact is None or not _fits(master, whole):
            shares, roots = _interval(master, values)
        elif _add_broken(master, whole, 0.0):
            continue
        else:
            shares, roots = _spread(programme, master.columns, exact)
        return Solution(shares, roots, sum(roots, Fraction(0)), upper, certificate, rounds)
    raise InternalError(f"the linear programme of shared links did not settle in {_MAX_ROUNDS} rounds")


def _nothing(master: Master, vertex: Vertex, rounds: int) -> Solution:
    """Tell that no data can reach all ranks."""
    certificate, upper = proof(master, vertex, simple=True)
    shares, roots = _spread(master.programme, master.columns, [Fraction(0)] * master.nunknown)
    return Solution(shares, roots, Fraction(0), upper, certificate, rounds)


def _interval(
    master: Master, values: _Floats
) -> tuple[tuple[tuple[Fraction, ...], ...], tuple[Fraction, ...]]:
    """Make whole shares of a solution that is right but for rounding, and as many data as surely fit them."""
    programme = master.programme
    network = programme.network
    unit = GRID // master.scale + 1
    safe = values * (1 - 1e-9) * unit
    roots = (np.floor(safe[: master.ncolumn]).astype(np.int64) @ master.columns).astype(np.int64)
    shares = []
    for h in range(master.nhalf):
        first = master.unknown(h, 0)
        share = np.floor(np.maximum(safe[first : first + master.narc], 0)).astype(np.int64)[
            programme.orbits.arc
        ]
        shares.append(trimmed(network, share))
    while True:
        ratios = [Fraction(1)]
        for half, share in zip(programme.halves, shares, strict=True):
            capacity = share[half.base]
            for vertices in broken_cuts(half.network, capacity, roots):
                out = vertices[half.network.src] & ~vertices[half.network.dst]
                held = int(roots[vertices[: network.nranks]].sum())
                ratios.append(Fraction(int(capacity[out].sum()), held))
        least = min(ratios)
        if least == 1:
            break
        roots = np.array([int(root * least) for root in roots.tolist()], np.int64)
    return (
        tuple(tuple(Fraction(value, unit) for value in share.tolist()) for share in shares),
        tuple(Fraction(value, unit) for value in roots.tolist()),
    )


def trimmed(network: Network, share: _Ints) -> _Ints:
    """Take off shares until every vertex that is no rank lets out what it takes in."""
    share = share.copy()
    arriving: dict[int, list[int]] = {}
    leaving: dict[int, list[int]] = {}
    for arc, (a, b) in enumerate(zip(network.src.tolist(), network.dst.tolist(), strict=True)):
        leaving.setdefault(a, []).append(arc)
        arriving.setdefault(b, []).append(arc)
    todo = list(range(network.nranks, network.nvertices))
    while todo:
        v = todo.pop()
        surplus = int(share[arriving.get(v, [])].sum() - share[leaving.get(v, [])].sum())
        for arc in (arriving if surplus > 0 else leaving).get(v, []):
            taken = min(abs(surplus), int(share[arc]))
            if taken:
                share[arc] -= taken
                other = int(network.src[arc] if surplus > 0 else network.dst[arc])
                surplus += -taken if surplus > 0 else taken
                if other >= network.nranks:
                    todo.append(other)
    return share


def _add_broken(master: Master, values: list[int], tolerance: float) -> bool:
    """Take in the cuts that a solution in whole numbers breaks by more than a share of all data."""
    programme = master.programme
    weights = np.array(values[: master.ncolumn], object) @ master.columns.astype(object)
    grown = False
    for h, half in enumerate(programme.halves):
        arcs = np.array(values[master.unknown(h, 0) : master.unknown(h, 0) + master.narc], object)
        capacity = arcs[programme.orbits.arc[half.base]]
        for vertices in broken_cuts(half.network, capacity, weights):
            out = vertices[half.network.src] & ~vertices[half.network.dst]
            missing = weights[vertices[: half.network.nranks]].sum() - capacity[out].sum()
            if missing > tolerance * int(weights.sum()):
                grown |= master.add(h, vertices)
    return grown


def broken_cuts(network: Network, capacity: npt.NDArray[Any], weights: npt.NDArray[Any]) -> list[_Mask]:
    """List sets that lack a rank and let out less than their ranks hold."""
    from pycomm.planner.graph.bounds import separate

    enough = np.minimum(capacity, weights.sum())  # more is never needed, and might not fit 64 bits
    masks = []
    for cut in separate(network, enough.astype(np.int64), weights.astype(np.int64)):
        mask = np.zeros(network.nvertices, np.bool_)
        mask[list(cut.vertices)] = True
        masks.append(mask)
    return masks


def _fits(master: Master, values: list[int]) -> bool:
    """Whether max-flows on a solution in whole numbers stay within 64 bits."""
    total = sum(value * int(gain) for value, gain in zip(values, master.gain, strict=False))
    return total * (len(master.programme.network.src) + 1) < 1 << 62


def _spread(
    programme: Programme, columns: _Ints, values: list[Fraction]
) -> tuple[tuple[tuple[Fraction, ...], ...], tuple[Fraction, ...]]:
    """Give every arc and rank the value of its class."""
    ncolumn, narc = len(columns), programme.orbits.narc
    label = programme.orbits.arc.tolist()
    shares = tuple(tuple(values[ncolumn + h * narc + a] for a in label) for h in range(len(programme.halves)))
    roots = tuple(
        sum((values[j] * weight for j, weight in enumerate(column) if weight), Fraction(0))
        for column in columns.T.tolist()
    )
    return shares, roots
