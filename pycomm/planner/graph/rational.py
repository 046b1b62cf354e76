"""Linear equations in whole numbers, solved exactly: makes a floating-point vertex one of fractions.

A vertex of a linear programme is the one solution of the constraints that are tight there. A floating-point
solver tells *which* are tight well enough; their values are then found here without any rounding. First rows
with one unknown left are solved, again and again, which takes nearly all of them. For the rest a
floating-point factorisation gives a few digits, whole numbers give the exact remainder, the remainder gives
the next digits, and so on until the digits can only stand for one fraction each. A solution counts when it
solves every equation.

References
----------
* Z. Wan: An algorithm to solve integer linear systems exactly using numerical methods. Journal of Symbolic
  Computation 41, 2006.
* W. Cook, D. E. Steffy: Solving very sparse rational systems of equations. ACM Transactions on Mathematical
  Software 37, 2011.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

__all__ = ["simplest", "solve_exactly"]

_BITS = 20
"""Digits taken at a time: floating point has 53 bits, and the factorisation spoils the lower ones."""
_MAX_DIGITS = 512

_Row = dict[int, int]


def simplest(value: float, tolerance: float, most: int = 100_000) -> Fraction | None:
    """Find a fraction of small denominator near a number; ``None`` when that is above ``most``.

    Examples
    --------
    >>> simplest(0.0714285714285, 1e-9)
    Fraction(1, 14)
    """
    fraction = Fraction(value).limit_denominator(most)
    smaller = Fraction(value).limit_denominator(max(1, int(math.sqrt(fraction.denominator))))
    if abs(float(smaller) - value) <= tolerance:
        return smaller
    return fraction if abs(float(fraction) - value) <= tolerance else None


def solve_exactly(
    rows: Sequence[Mapping[int, int]], right: Sequence[int | Fraction], count: int
) -> list[Fraction] | None:
    """Solve ``sum(row[j] * z[j]) = right`` for all rows, which may be more than are needed.

    Parameters
    ----------
    rows
        Coefficients by unknown.
    right
        Right sides.
    count
        How many unknowns there are, numbered from 0.

    Returns
    -------
    list[Fraction] | None
        The solution; ``None`` when there is none, or more than one, or it takes too many digits.
    """
    live: list[_Row] = [{j: a for j, a in row.items() if a} for row in rows]
    rest = [Fraction(value) for value in right]
    value: dict[int, Fraction] = {}
    using: dict[int, list[int]] = {}
    for i, row in enumerate(live):
        for j in row:
            using.setdefault(j, []).append(i)
    ready = [i for i, row in enumerate(live) if len(row) == 1]
    while ready:
        i = ready.pop()
        if len(live[i]) != 1:
            continue
        ((j, a),) = live[i].items()
        value[j] = rest[i] / a
        for other in using[j]:
            rest[other] -= live[other].pop(j) * value[j]
            if len(live[other]) == 1:
                ready.append(other)
    if any(not row and rest[i] for i, row in enumerate(live)):
        return None
    unknown = [j for j in range(count) if j not in value]
    if unknown:
        kept = [i for i, row in enumerate(live) if row]
        solved = _solve_rest([live[i] for i in kept], [rest[i] for i in kept], unknown)
        if solved is None:
            return None
        value.update(zip(unknown, solved, strict=True))
    return [value[j] for j in range(count)]


def _solve_rest(rows: list[_Row], right: list[Fraction], unknown: list[int]) -> list[Fraction] | None:
    """Solve the normal equations, which are as many as unknowns, digit by digit."""
    from scipy.sparse import csr_array
    from scipy.sparse.linalg import splu

    if len(rows) < len(unknown):
        return None
    column = {j: k for k, j in enumerate(unknown)}
    starts = np.cumsum([0, *(len(row) for row in rows)])
    places = np.array([column[j] for row in rows for j in row], np.int64)
    data = np.array([a for row in rows for a in row.values()], np.int64)
    matrix = csr_array((data, places, starts), shape=(len(rows), len(unknown)))
    scale = math.lcm(*(value.denominator for value in right))
    target = np.array([int(value * scale) for value in right], object)
    normal = csr_array(matrix.T @ matrix)
    try:
        factors = splu(normal.astype(np.float64).tocsc())
    except RuntimeError:  # singular
        return None
    goal = _product(csr_array(matrix.T), target)
    residual, digits = goal, np.zeros(len(unknown), object)
    check_at = 3
    for count in range(1, _MAX_DIGITS + 1):
        guess = factors.solve(residual.astype(np.float64)) * float(1 << _BITS)
        if not np.isfinite(guess).all():
            return None
        digit = np.array([round(g) for g in guess.tolist()], object)
        digits = digits * (1 << _BITS) + digit
        residual = residual * (1 << _BITS) - _product(normal, digit)
        if count < check_at and residual.any():
            continue
        check_at *= 2
        numbers, common = _fractions(digits.tolist(), 1 << (_BITS * count))
        if (_product(matrix, np.array(numbers, object)) == target * common).all():
            return [Fraction(number, common * scale) for number in numbers]
        if not residual.any():
            return None  # exact, and yet no solution of all rows
    return None


def _product(matrix: Any, vector: Any) -> Any:
    """Multiply a sparse matrix of machine integers with a vector of any integers."""
    if not matrix.nnz:
        return np.zeros(matrix.shape[0], object)
    sums = np.zeros(matrix.shape[0], object)
    filled = np.flatnonzero(np.diff(matrix.indptr))
    terms = matrix.data.astype(object) * vector[matrix.indices]
    sums[filled] = np.add.reduceat(terms, matrix.indptr[filled])
    return sums


def _fractions(digits: list[int], one: int) -> tuple[list[int], int]:
    """Find fractions of one small denominator near ``digits / one``: numerators and the denominator."""
    limit, common = math.isqrt(one), 1
    for digit in digits:
        common *= Fraction(digit * common, one).limit_denominator(max(1, limit // common)).denominator
        if common > limit:
            break
    return [(2 * digit * common + one) // (2 * one) for digit in digits], common
