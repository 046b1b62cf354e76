"""Linear equations in whole numbers, solved exactly: makes a floating-point vertex one of fractions.

A vertex of a linear programme is the one solution of the constraints that are tight there. A floating-point
solver tells *which* are tight well enough; their values are then found here without any rounding. First rows
with one unknown left are solved, again and again, which takes nearly all of them; the dense rest is solved
modulo a small prime and lifted digit by digit (Dixon's method), so that numbers never grow on the way.

References
----------
* J. D. Dixon: Exact solution of linear equations using p-adic expansions. Numerische Mathematik 40, 1982.
* W. Cook, D. E. Steffy: Solving very sparse rational systems of equations. ACM TOMS 37, 2011.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["solve_exactly"]

_PRIMES = (1048573, 1048571, 1048559)
"""Products of two stay below 2^40, so that a million of them can be added in 64 bits."""
_MAX_DENSE = 1500
"""Unknowns in the dense rest; more would take minutes."""
_MAX_DIGITS = 4096

_Row = dict[int, int]


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
        The solution; ``None`` when there is none, or more than one, or the system is too large.
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
    open_rows = [i for i, row in enumerate(live) if row]
    unknown = [j for j in range(count) if j not in value]
    if unknown:
        dense = _solve_dense([live[i] for i in open_rows], [rest[i] for i in open_rows], unknown)
        if dense is None:
            return None
        value.update(dense)
    return [value[j] for j in range(count)]


def _solve_dense(rows: list[_Row], right: list[Fraction], unknown: list[int]) -> dict[int, Fraction] | None:
    size = len(unknown)
    if size > _MAX_DENSE or len(rows) < size:
        return None
    column = {j: k for k, j in enumerate(unknown)}
    matrix = np.zeros((len(rows), size), np.int64)
    for i, row in enumerate(rows):
        for j, a in row.items():
            matrix[i, column[j]] = a
    scale = math.lcm(*(value.denominator for value in right))
    target = [int(value * scale) for value in right]
    for prime in _PRIMES:
        found = _inverse_of_some_rows(matrix % prime, prime)
        if found is None:
            continue
        chosen, inverse = found
        solution = _lift(matrix[chosen], [target[i] for i in chosen], inverse, prime)
        if solution is None:
            return None
        numbers, denominator = solution
        for i, row in enumerate(rows):
            if sum(a * numbers[column[j]] for j, a in row.items()) != target[i] * denominator:
                return None
        return {j: Fraction(numbers[k], denominator * scale) for k, j in enumerate(unknown)}
    return None


def _inverse_of_some_rows(
    matrix: npt.NDArray[np.int64], prime: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Choose independent rows modulo the prime, as many as there are columns, and invert them."""
    size = matrix.shape[1]
    chosen = _independent_rows(matrix, prime)
    if len(chosen) < size:
        return None
    work = np.concatenate([matrix[chosen], np.eye(size, dtype=np.int64)], axis=1)
    for k in range(size):
        pivot = k + int(np.flatnonzero(work[k:, k])[0])
        work[[k, pivot]] = work[[pivot, k]]
        work[k] = work[k] * pow(int(work[k, k]), -1, prime) % prime
        others = np.flatnonzero(work[:, k])
        others = others[others != k]
        work[others] = (work[others] - work[others, k, None] * work[k]) % prime
    return chosen, work[:, size:]


def _independent_rows(matrix: npt.NDArray[np.int64], prime: int) -> npt.NDArray[np.int64]:
    work, order = matrix.copy(), np.arange(len(matrix))
    for k in range(matrix.shape[1]):
        candidates = np.flatnonzero(work[k:, k])
        if not len(candidates):
            return order[:0]
        pivot = k + int(candidates[0])
        work[[k, pivot]], order[[k, pivot]] = work[[pivot, k]], order[[pivot, k]]
        below = k + 1 + np.flatnonzero(work[k + 1 :, k])
        factor = work[below, k] * pow(int(work[k, k]), -1, prime) % prime
        work[below] = (work[below] - factor[:, None] * work[k]) % prime
    return order[: matrix.shape[1]]


def _lift(
    matrix: npt.NDArray[np.int64], target: list[int], inverse: npt.NDArray[np.int64], prime: int
) -> tuple[list[int], int] | None:
    """Find digits base the prime until the fractions that they stand for solve the system."""
    residual: npt.NDArray[Any] = np.array(target, object)
    total: npt.NDArray[Any] = np.zeros(len(target), object)
    power, check_at = 1, 8
    for digits in range(1, _MAX_DIGITS + 1):
        digit = inverse @ (residual % prime).astype(np.int64) % prime
        total = total + digit.astype(object) * power
        power *= prime
        residual = (residual - (matrix @ digit).astype(object)) // prime
        if digits == check_at or not residual.any():
            found = _fractions(total.tolist(), power)
            if found is not None and _solves(matrix, target, *found):
                return found
            check_at *= 2
    return None


def _solves(matrix: npt.NDArray[np.int64], target: list[int], numbers: list[int], denominator: int) -> bool:
    product = matrix.astype(object) @ np.array(numbers, object)
    return bool(all(a == b * denominator for a, b in zip(product.tolist(), target, strict=True)))


def _fractions(residues: list[int], modulus: int) -> tuple[list[int], int] | None:
    """Recover numerators over one common denominator from their residues."""
    limit = math.isqrt(modulus // 2)
    common = 1
    for residue in residues:
        reduced = residue * common % modulus
        low, high = modulus, reduced
        below, above = 0, 1
        while high > limit:
            quotient = low // high
            low, high = high, low - quotient * high
            below, above = above, below - quotient * above
        common *= abs(above)
        if common > limit:
            return None
    numbers = [residue * common % modulus for residue in residues]
    return [n - modulus if n > modulus // 2 else n for n in numbers], common
