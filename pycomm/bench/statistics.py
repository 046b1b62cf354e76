"""From the times of all ranks to one record per point. Pure functions only."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pycomm.bench.scenario import busbw_factor, total_nbytes
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = ["Record", "Spread", "geometric_mean", "record", "spread", "with_ratios"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Times of one point in microseconds, each call counted as the slowest rank saw it."""

    p50_us: float
    p99_us: float
    min_us: float
    mean_us: float
    skew_us: float
    iterations: int


@dataclass(frozen=True, slots=True)
class Record:
    """One measured point of one backend.

    Attributes
    ----------
    nbytes : int
        The whole array, S.
    time_us, p99_us, min_us, mean_us : float
        Median and others over the calls; a call takes as long as its slowest rank.
    skew_us : float
        Median over the calls of slowest minus fastest rank.
    algbw, busbw : float
        GB/s, from the median.
    wrong : int
        Elements that differ from the oracle, on all ranks together; -1 when not checked.
    ratio : float
        Time over the first backend's: above 1, that one is faster. ``nan`` without a first.
    """

    kind: str
    nranks: int
    backend: str
    in_place: bool
    nbytes: int
    count: int
    dtype: str
    op: str
    root: int
    time_us: float
    p99_us: float
    min_us: float
    mean_us: float
    skew_us: float
    algbw: float
    busbw: float
    iterations: int
    wrong: int = -1
    ratio: float = math.nan


def spread(times_ns: npt.NDArray[np.int64]) -> Spread:
    """Summarise times of shape (ranks, calls)."""
    slowest = times_ns.max(axis=0) / 1e3
    fastest = times_ns.min(axis=0) / 1e3
    return Spread(
        p50_us=float(np.median(slowest)),
        p99_us=float(np.percentile(slowest, 99)),
        min_us=float(slowest.min()),
        mean_us=float(slowest.mean()),
        skew_us=float(np.median(slowest - fastest)),
        iterations=times_ns.shape[1],
    )


def record(
    kind: CollectiveKind,
    nranks: int,
    backend: str,
    in_place: bool,
    count: int,
    dtype: DType,
    op: ReduceOp,
    root: int,
    times: Spread,
    wrong: int,
) -> Record:
    """Make the record of one point."""
    nbytes = total_nbytes(kind, count, dtype.itemsize, nranks)
    algbw = nbytes / times.p50_us / 1e3 if times.p50_us > 0 else 0.0
    return Record(
        kind=kind.label,
        nranks=nranks,
        backend=backend,
        in_place=in_place,
        nbytes=nbytes,
        count=count,
        dtype=dtype.label,
        op=op.label if kind.reduces else "",
        root=root if kind.is_rooted else -1,
        time_us=times.p50_us,
        p99_us=times.p99_us,
        min_us=times.min_us,
        mean_us=times.mean_us,
        skew_us=times.skew_us,
        algbw=algbw,
        busbw=algbw * busbw_factor(kind, nranks),
        iterations=times.iterations,
        wrong=wrong,
    )


def with_ratios(records: Sequence[Record], first: str) -> list[Record]:
    """Fill in the ratios to the backend ``first`` among records of one point."""
    from dataclasses import replace

    base = {(r.kind, r.nranks, r.in_place, r.nbytes): r.time_us for r in records if r.backend == first}
    filled = []
    for one in records:
        time_us = base.get((one.kind, one.nranks, one.in_place, one.nbytes), 0.0)
        filled.append(replace(one, ratio=one.time_us / time_us if time_us > 0 else math.nan))
    return filled


def geometric_mean(values: Iterable[float]) -> float:
    """Geometric mean of positive values; ``nan`` of none."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan
