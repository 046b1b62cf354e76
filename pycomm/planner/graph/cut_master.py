"""The linear programme of shared links with the cuts known so far, and what HiGHS says of it.

Conditions are kept in whole numbers; the solver gets them in floating point, the greatest capacity being 1.

References
----------
* Q. Huangfu, J. A. J. Hall: Parallelizing the dual revised simplex method. Mathematical Programming
  Computation 10, 2018 (HiGHS).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.errors import InternalError
from pycomm.planner.graph.cut_programme import Programme

__all__ = ["Master", "Point", "Row", "Vertex"]

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

Row = dict[int, int]
"""A condition: the factor of each unknown in it."""


class Vertex(NamedTuple):
    """Optimal multipliers as the solver says them; ``value`` is in units of capacity."""

    value: float
    multipliers: _Floats
    potentials: _Floats
    reduced_costs: _Floats


class Point(NamedTuple):
    """A vertex in which unknowns are sums of two parts, the first at most ``most``; in units of ``scale``."""

    parts: _Floats
    slack: _Floats
    most: list[Fraction]
    total: Fraction
    scale: int

    def values(self, count: int) -> _Floats:
        """Add the parts of the unknowns, in units of capacity."""
        values: _Floats = np.maximum(self.parts[:count] + self.parts[count:], 0.0) * self.scale
        return values


@dataclass(eq=False)
class Master:
    """The programme with the cuts known so far. Unknowns: columns first, then the arcs of each half.

    Parameters
    ----------
    programme
        What is asked.
    columns
        Its root weights, as of :meth:`~pycomm.planner.graph.cut_programme.Programme.merged_columns`.
    cuts, rows, seen
        Half and vertices of each cut, its condition, and all conditions known; :meth:`add` fills them.
    """

    programme: Programme
    columns: _Ints
    cuts: list[tuple[int, _Mask]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    seen: set[tuple[tuple[int, int], ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        programme = self.programme
        self.capacity = programme.class_capacity()
        self.scale = int(self.capacity.max(initial=1))
        self.narc, self.nhalf = programme.orbits.narc, len(programme.halves)
        self.ncolumn = len(self.columns)
        self.nunknown = self.ncolumn + self.nhalf * self.narc
        self.gain = self.columns.sum(axis=1)
        self.shared = [{self.unknown(h, a): 1 for h in range(self.nhalf)} for a in range(self.narc)]
        self.balance: dict[tuple[int, int], Row] = {}
        for h in range(self.nhalf):
            for k, a, times in programme.balance(h):
                self.balance.setdefault((h, k), {})[self.unknown(h, a)] = times
        everything = np.ones(programme.network.nvertices, np.bool_)
        for v in programme.orbits.representatives(programme.network.nranks).tolist():
            for h in range(self.nhalf):
                cut = everything.copy()
                cut[v] = False
                self.add(h, cut)

    def unknown(self, half: int, arc: int) -> int:
        """Tell the number of the unknown of a class of arcs."""
        return self.ncolumn + half * self.narc + arc

    def add(self, half: int, vertices: _Mask) -> bool:
        """Take in a cut; false when it is known."""
        row = {self.unknown(half, a): -times for a, times in self.programme.leaving(half, vertices)}
        held = self.columns @ vertices[: self.programme.network.nranks]
        row.update({j: weight for j, weight in enumerate(held.tolist()) if weight})
        key = tuple(sorted(row.items()))
        if key in self.seen:
            return False
        self.seen.add(key)
        self.cuts.append((half, vertices.copy()))
        self.rows.append(row)
        return True

    def matrix(self, rows: Sequence[Row]) -> Any:
        """Lay rows out for the solver."""
        from scipy.sparse import csr_array

        starts = np.cumsum([0, *(len(row) for row in rows)])
        columns = np.array([j for row in rows for j in row], np.int64)
        data = np.array([a for row in rows for a in row.values()], np.float64)
        return csr_array((data, columns, starts), shape=(len(rows), self.nunknown))

    def right(self) -> _Floats:
        """Right sides of cuts and shared capacities, the greatest capacity being 1."""
        return np.concatenate([np.zeros(len(self.rows)), self.capacity / self.scale])

    def best(self) -> Vertex:
        """Find how much data there can be, and the multipliers that say why."""
        cost = np.zeros(self.nunknown)
        cost[: self.ncolumn] = -self.gain / self.gain.max()
        balance = list(self.balance.values())
        found = _highs(cost, self.matrix([*self.rows, *self.shared]), self.right(), self.matrix(balance))
        if found is None:
            raise InternalError("HiGHS did not solve the linear programme of shared links; please report it")
        value = float(found.x[: self.ncolumn] @ self.gain) * self.scale
        return Vertex(value, -found.ineqlin.marginals, -found.eqlin.marginals, found.lower.marginals)

    def even(self, value: float, total: Fraction) -> Point | None:
        """Find a vertex with this much data that uses all arcs and both halves as evenly as it can.

        A vertex that is merely optimal leaves most arcs unused, and breaks hundreds of cuts more. Here every
        unknown is the sum of two parts; the first, up to an even share, is rewarded. Even is, of an arc, the
        same share for each half; of the roots, as much at each, which comes first.
        """
        most = [total / int(self.gain.sum())] * self.ncolumn
        most += [Fraction(int(c), self.nhalf) for _ in range(self.nhalf) for c in self.capacity]
        limit = np.array([float(m) for m in most]) / self.scale
        smallest = float(limit[self.ncolumn :].min(initial=1.0))
        reward = smallest / np.maximum(limit, smallest)
        reward[: self.ncolumn] = 10.0 * self.gain
        above, equal = (
            self.matrix([*self.rows, *self.shared]),
            self.matrix([*self.balance.values(), self.all()]),
        )
        goal = np.zeros(len(self.balance) + 1)
        goal[-1] = value / self.scale
        from scipy.sparse import hstack

        found = _highs(
            np.concatenate([-reward, np.zeros(self.nunknown)]),
            hstack([above, above], format="csr"),
            self.right(),
            hstack([equal, equal], format="csr"),
            goal,
            np.concatenate([limit, np.full(self.nunknown, np.inf)]),
        )
        if found is None:
            return None
        return Point(found.x, found.slack, most, total, self.scale)

    def all(self) -> Row:
        """Coefficients of the data of all roots."""
        return {j: weight for j, weight in enumerate(self.gain.tolist()) if weight}


def _highs(
    cost: _Floats,
    above: Any,
    right: _Floats,
    equal: Any,
    goal: _Floats | None = None,
    most: _Floats | None = None,
) -> Any:
    """Minimise the cost with ``above @ z <= right``, ``equal @ z == goal``, ``0 <= z <= most``.

    The simplex method: its answer is a vertex. ``None`` when nothing is feasible.
    """
    from scipy.optimize import linprog

    found = linprog(
        cost,
        A_ub=above,
        b_ub=right,
        A_eq=equal,
        b_eq=np.zeros(equal.shape[0]) if goal is None else goal,
        bounds=(0, None) if most is None else np.stack([np.zeros_like(most), most], axis=1),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    return found if found.x is not None and found.status == 0 else None
