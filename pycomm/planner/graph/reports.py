"""What all bounds and plans can say, whatever they are made of."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from pycomm.planner.graph.bounds import Cut

if TYPE_CHECKING:
    from pycomm.schedule import Schedule

__all__ = ["AnyBound", "AnyPlan", "facts_of", "gigabytes", "text_of"]


class AnyBound(Protocol):
    """What every bound can say."""

    @property
    def algbw(self) -> Fraction:
        """Greatest rate, bytes of the whole result per second."""

    @property
    def seconds_per_byte(self) -> Fraction:
        """Least time over the bytes of the whole result."""

    @property
    def cut(self) -> Cut:
        """A set of vertices that the proof counts."""

    def limited_by(self) -> str:
        """Name the links that limit the collective."""


class AnyPlan(Protocol):
    """What every plan can say."""

    @property
    def bound(self) -> AnyBound:
        """What nothing can beat."""

    @property
    def algbw(self) -> Fraction:
        """Bytes per second, as of the bound."""

    @property
    def ratio(self) -> Fraction:
        """Part of the bound that is reached."""

    @property
    def height(self) -> int:
        """Messages one after another."""

    @property
    def k(self) -> int:
        """Trees at each rank, or pieces of each block."""

    @property
    def how(self) -> str:
        """What was done."""

    @property
    def seconds(self) -> float:
        """Time taken to plan."""

    def text(self) -> str:
        """One line for people."""

    def facts(self) -> dict[str, Any]:
        """All figures, for programs."""

    def schedule(self, *, pieces: int = 0, channels: int = 0) -> Schedule:
        """Lower to a schedule."""


def text_of(plan: AnyPlan) -> str:
    """Say in one line what a plan reaches of its bound, and what limits it."""
    percent = f"{math.floor(plan.ratio * 1000) / 10:.1f}".removesuffix(".0")
    return (
        f"{gigabytes(plan.algbw)} GB/s of {gigabytes(plan.bound.algbw)} possible ({percent}%), "
        f"limited by {plan.bound.limited_by()}"
    )


def facts_of(plan: AnyPlan) -> dict[str, Any]:
    """Figures that all plans have; fractions as text."""
    return {
        "algbw_GBps": float(plan.algbw / 10**9),
        "algbw_fraction": str(plan.algbw / 10**9),
        "bound_GBps": float(plan.bound.algbw / 10**9),
        "bound_fraction": str(plan.bound.algbw / 10**9),
        "ratio": float(plan.ratio),
        "limited_by": plan.bound.limited_by(),
        "height": plan.height,
        "k": plan.k,
        "how": plan.how,
        "seconds": plan.seconds,
    }


def gigabytes(rate: Fraction) -> str:
    """Print a rate in GB/s with three digits or so."""
    value = float(rate / 10**9)
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"
