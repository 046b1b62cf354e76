"""The table on the screen: nccl-tests' columns, and a few more. Pure functions only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from pycomm.bench.scenario import Scenario
from pycomm.bench.statistics import Record

__all__ = ["footer", "header", "pair_up", "row", "significant"]

_LEFT = (
    ("size", "(B)", 12),
    ("count", "(elements)", 12),
    ("type", "", 8),
    ("redop", "", 6),
    ("backend", "", 9),
)
_HALF = (
    ("time", "(us)", 10),
    ("p99", "(us)", 10),
    ("skew", "(us)", 8),
    ("algbw", "(GB/s)", 7),
    ("busbw", "(GB/s)", 7),
    ("#wrong", "", 7),
    ("ratio", "", 7),
)
_HALF_WIDTH = sum(width + 1 for _, _, width in _HALF)


def significant(value: float, digits: int = 3) -> str:
    """Print a number with few digits and no exponent.

    Examples
    --------
    >>> significant(0.123456), significant(12.3456), significant(123456.7)
    ('0.123', '12.3', '123457')
    """
    if math.isnan(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{min(decimals, 6)}f}"


def header(kind: str, nranks: int, scenario: Scenario) -> list[str]:
    """Head of one collective's table."""
    left = sum(width + 1 for _, _, width in _LEFT)
    calls = f"{scenario.iterations} calls" if scenario.iterations else f"{scenario.budget_s:g} s of calls"
    return [
        f"# {kind}, {nranks} ranks, {calls} per point, {scenario.warmup} to warm up",
        "# size: the whole array (n times one rank's part but for allreduce, broadcast, reduce)",
        "# time: median over the calls, each as long as its slowest rank; skew: slowest minus fastest rank",
        f"# ratio: time / time of {scenario.backends[0]}",
        f"#{'':{left - 1}}{'out-of-place':^{_HALF_WIDTH}}  {'in-place':^{_HALF_WIDTH}}".rstrip(),
        "#" + _heads(0),
        "#" + _heads(1),
    ]


def _heads(which: int) -> str:
    left = _line([(name, unit)[which] for name, unit, _ in _LEFT], _LEFT)
    half = _line([(name, unit)[which] for name, unit, _ in _HALF], _HALF)
    return f"{left}{half}  {half}"[1:].rstrip()


def pair_up(records: Iterable[Record]) -> list[tuple[Record | None, Record | None]]:
    """Put the two forms of each point and backend side by side, in order of appearance."""
    pairs: dict[tuple[str, int, int, str], list[Record | None]] = {}
    for one in records:
        pairs.setdefault((one.kind, one.nranks, one.nbytes, one.backend), [None, None])[one.in_place] = one
    return [(out, inside) for out, inside in pairs.values()]


def row(out: Record | None, inside: Record | None) -> str:
    """Print a point of one backend on one line."""
    one = out or inside
    if one is None:
        return ""
    left = [str(one.nbytes), str(one.count), one.dtype, one.op or "none", one.backend]
    return _line(left, _LEFT) + "  ".join(_line(_cells(half), _HALF) for half in (out, inside)).rstrip()


def footer(records: Sequence[Record]) -> list[str]:
    """Sum up: wrong values, mean bus bandwidth per backend and form."""
    checked = [one for one in records if one.wrong >= 0]
    wrong = sum(one.wrong for one in checked)
    verdict = "not checked" if not checked else "OK" if wrong == 0 else "FAILED"
    lines = [f"# wrong values: {wrong} ({verdict})"]
    for backend in dict.fromkeys(one.backend for one in records):
        mine = [one for one in records if one.backend == backend]
        mean = sum(one.busbw for one in mine) / len(mine)
        lines.append(f"# average busbw of {backend}: {significant(mean, 4)} GB/s")
    return lines


def _cells(one: Record | None) -> list[str]:
    if one is None:
        return ["-"] * len(_HALF)
    return [
        significant(one.time_us, 4),
        significant(one.p99_us, 4),
        significant(one.skew_us),
        _rate(one.algbw),
        _rate(one.busbw),
        "-" if one.wrong < 0 else str(one.wrong),
        _ratio(one.ratio),
    ]


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}" if value >= 0.1 else f"{value:.4f}"


def _rate(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _line(cells: Sequence[str], columns: Sequence[tuple[str, str, int]]) -> str:
    return "".join(f"{cell:>{width}} " for cell, (_, _, width) in zip(cells, columns, strict=True))
