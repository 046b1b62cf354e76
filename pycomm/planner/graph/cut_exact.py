"""What HiGHS found in floating point, made exact: a vertex of the programme of shared links, and its dual.

Small denominators are tried first. Where these do not fit, all that is taken from the solver is which
conditions are tight, and these equations are solved in fractions. Whatever comes out is checked exactly.

References
----------
* W. Cook, T. Koch, D. E. Steffy, K. Wolter: A hybrid branch-and-bound approach for exact rational
  mixed-integer programming. Mathematical Programming Computation 5, 2013 (exact values from a floating-point
  basis).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

import numpy as np

from pycomm.errors import InternalError
from pycomm.planner.graph.cut_master import Master, Point, Row, Vertex
from pycomm.planner.graph.cut_programme import Certificate, WeightedCut
from pycomm.planner.graph.rational import simplest, solve_exactly

__all__ = ["GRID", "exact_point", "proof"]

_TIGHT = (1e-9, 1e-7, 1e-11)
"""Slack, relative to the greatest capacity, below which a constraint counts as tight; tried in turn."""
GRID = 1 << 40
"""Whole units that what the solver says is rounded to."""


# --------------------------------------------------------------------------------------------------- solution


def exact_point(master: Master, point: Point) -> list[Fraction] | None:
    """Make a vertex exact: by rounding where that is enough, or by solving what is tight there."""
    exact = _simple_primal(master, point)
    for tight in _TIGHT:
        exact = _primal(master, point, tight) if exact is None else exact
    return exact


def _primal(master: Master, point: Point, tight: float) -> list[Fraction] | None:
    """Solve what is tight at a vertex exactly; ``None`` when that is no feasible solution."""
    n = master.nunknown
    values = [Fraction(0)] * n
    number: dict[int, list[int]] = {}
    live = 0
    for part, value in enumerate(point.parts.tolist()):
        j = part % n
        if part < n and value >= float(point.most[j]) / point.scale - tight:
            values[j] += point.most[j]
        elif value > tight:
            number.setdefault(j, []).append(live)
            live += 1
    limits = [*(Fraction(0) for _ in master.rows), *(Fraction(int(c)) for c in master.capacity)]
    held = [(row, limit) for row, limit in zip([*master.rows, *master.shared], limits, strict=True)]
    held = [held[i] for i in np.flatnonzero(point.slack <= tight).tolist()]
    held += [(row, Fraction(0)) for row in master.balance.values()] + [(master.all(), point.total)]
    rows = [{k: a for j, a in row.items() for k in number.get(j, ())} for row, _ in held]
    right = [limit - sum((a * values[j] for j, a in row.items()), Fraction(0)) for row, limit in held]
    solved = solve_exactly(rows, right, live)
    if solved is None:
        return None
    for j, parts in number.items():
        values[j] += sum((solved[k] for k in parts), Fraction(0))
    return values if _keeps(master, values) else None


def _simple_primal(master: Master, point: Point) -> list[Fraction] | None:
    """Round a vertex to fractions of small denominators; ``None`` when that is no feasible solution."""
    scaled = (point.parts * point.scale).tolist()
    rounded = [simplest(value, 1e-12 * point.scale) for value in scaled]
    whole = [value for value in rounded if value is not None]
    if len(whole) < len(rounded):
        return None
    values = [a + b for a, b in zip(whole[: master.nunknown], whole[master.nunknown :], strict=True)]
    total = sum((values[j] * weight for j, weight in master.all().items()), Fraction(0))
    return values if total == point.total and _keeps(master, values) else None


def _keeps(master: Master, values: list[Fraction]) -> bool:
    """Whether a solution keeps all that is known, exactly: capacities, balances and the cuts so far."""

    def total(row: Row) -> Fraction:
        return sum((values[j] * a for j, a in row.items()), Fraction(0))

    return (
        min(values) >= 0
        and all(total(row) <= c for row, c in zip(master.shared, master.capacity.tolist(), strict=True))
        and all(total(row) == 0 for row in master.balance.values())
        and all(total(row) <= 0 for row in master.rows)
    )


# ------------------------------------------------------------------------------------------------------ proof


def proof(master: Master, vertex: Vertex, *, simple: bool) -> tuple[Certificate, Fraction]:
    """Make multipliers exact: by rounding if that may do, by solving what is tight, or else nearly.

    Parameters
    ----------
    master
        With all cuts that the multipliers are of, or more.
    vertex
        The multipliers.
    simple
        Whether rounding to small denominators may do.

    Returns
    -------
    tuple
        The proof, and what it bounds the data by.

    Raises
    ------
    InternalError
        The multipliers prove nothing.
    """
    best: tuple[Certificate, Fraction] | None = None
    tries: list[Callable[[], Certificate | None]] = [
        *([partial(_rounded_dual, master, vertex, simple=True)] if simple else []),
        *(partial(_dual, master, vertex, tight) for tight in _TIGHT),
        partial(_rounded_dual, master, vertex, simple=False),
    ]
    for attempt in tries:
        certificate = attempt()
        upper = None if certificate is None else certificate.value()
        if certificate is None or upper is None:
            continue
        if best is None or upper < best[1]:
            best = certificate, upper
        if abs(float(upper) - vertex.value) <= 1e-11 * vertex.value:
            break
    if best is None:
        raise InternalError("the multipliers of the linear programme of shared links prove nothing")
    return best


def _dual(master: Master, vertex: Vertex, tight: float) -> Certificate | None:
    """Solve the multipliers exactly: of cuts, of capacities, and of switches."""
    number = {int(i): k for k, i in enumerate(np.flatnonzero(vertex.multipliers > tight))}
    equations: dict[int, Row] = {int(j): {} for j in np.flatnonzero(np.abs(vertex.reduced_costs) <= tight)}
    ncut = len(vertex.multipliers) - len(master.shared)  # there may be newer ones
    held = [master.rows[i] if i < ncut else master.shared[i - ncut] for i in number]
    for k, row in enumerate([*held, *master.balance.values()]):
        for j, a in row.items():
            if j in equations:
                equations[j][k] = a
    top = int(master.gain.max())
    right = [Fraction(int(master.gain[j]), top) if j < master.ncolumn else Fraction(0) for j in equations]
    solved = solve_exactly(list(equations.values()), right, len(held) + len(master.balance))
    if solved is None:
        return None
    return _certificate(master, {i: solved[k] for i, k in number.items() if i < ncut}, solved[len(held) :])


def _rounded_dual(master: Master, vertex: Vertex, *, simple: bool) -> Certificate | None:
    """Round the multipliers, to small denominators (``None`` when that is far off) or as they are."""
    ncut = len(vertex.multipliers) - len(master.shared)
    numbers = [*np.maximum(vertex.multipliers[:ncut], 0.0).tolist(), *vertex.potentials.tolist()]
    if simple:
        rounded = [simplest(number, 1e-11) for number in numbers]
    else:
        rounded = [Fraction(round(number * GRID), GRID) for number in numbers]
    values = [value for value in rounded if value is not None]
    if len(values) < len(rounded):
        return None
    return _certificate(master, dict(enumerate(values[:ncut])), values[ncut:])


def _certificate(master: Master, weights: dict[int, Fraction], potentials: Sequence[Fraction]) -> Certificate:
    """Put multipliers into the form of a proof."""
    table = [[Fraction(0)] * master.programme.orbits.nvertex for _ in master.programme.halves]
    for (h, k), value in zip(master.balance, potentials, strict=True):
        table[h][k] = value
    cuts = tuple(WeightedCut(*master.cuts[i], weight) for i, weight in weights.items() if weight)
    return Certificate(master.programme, cuts, tuple(tuple(row) for row in table))
