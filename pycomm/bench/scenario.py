"""What to measure: a scenario as data, and the arithmetic of sizes and bandwidths. Pure functions only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pycomm.collectives.spec import equal_form
from pycomm.errors import UsageError
from pycomm.types import CollectiveKind, DType, ReduceOp

__all__ = [
    "COPY",
    "KINDS",
    "Scenario",
    "block_elements",
    "busbw_factor",
    "parse_kinds",
    "sweep",
    "total_nbytes",
]

KINDS: tuple[CollectiveKind, ...] = (
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALL,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
    CollectiveKind.GATHER,
    CollectiveKind.SCATTER,
    CollectiveKind.BARRIER,
)
COPY = "copy"
"""Stands among the backends for the floor inside one host: all ranks at once copy what they would receive."""
_WHOLE = (CollectiveKind.ALLREDUCE, CollectiveKind.BROADCAST, CollectiveKind.REDUCE)
_SPREADING = (
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALL,
    CollectiveKind.GATHER,
    CollectiveKind.SCATTER,
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One sweep.

    Parameters
    ----------
    kinds
        Collectives, measured one after the other.
    sizes
        Bytes of the whole array, see :func:`total_nbytes`.
    backends
        Names of backends; the first is the one that ratios refer to. :data:`COPY` may follow.
    dtype, op, root
        Of every call.
    iterations
        Timed calls per point and backend; 0 chooses as many as fit into ``budget_s``.
    warmup
        Calls before the timed ones.
    budget_s
        Time per point and backend when ``iterations`` is 0.
    rounds
        The timed calls come in this many turns; backends take turns, so that noise hits all alike.
    check
        Whether results are compared with the oracle, outside the timed calls.
    in_place, out_of_place
        Which forms are measured, where the collective has both.
    timeout_s
        Deadline of every wait.
    """

    kinds: tuple[CollectiveKind, ...] = (CollectiveKind.ALLREDUCE,)
    sizes: tuple[int, ...] = (8,)
    backends: tuple[str, ...] = ("native",)
    dtype: DType = DType.FLOAT32
    op: ReduceOp = ReduceOp.SUM
    root: int = 0
    iterations: int = 20
    warmup: int = 5
    budget_s: float = 0.3
    rounds: int = 5
    check: bool = True
    in_place: bool = True
    out_of_place: bool = True
    timeout_s: float = 300.0

    @property
    def libraries(self) -> tuple[str, ...]:
        """The backends that are one."""
        return tuple(name for name in self.backends if name != COPY)

    def validate(self) -> Scenario:
        """Return the scenario itself; raises ``UsageError`` for what cannot be measured."""
        if not self.kinds or not self.sizes or not self.backends:
            raise UsageError("a benchmark needs at least one collective, one size and one backend")
        if len(set(self.backends)) != len(self.backends):
            raise UsageError(f"a backend is named twice: {','.join(self.backends)}")
        if self.backends[0] == COPY:
            raise UsageError(f"{COPY} is what backends are compared with; name a backend before it")
        if self.iterations < 0 or self.warmup < 0 or self.rounds < 1:
            raise UsageError("iterations and warm-up are 0 or more, rounds 1 or more")
        if not (self.in_place or self.out_of_place):
            raise UsageError(
                "neither in-place nor out-of-place calls are to be measured; ask for one of them"
            )
        if any(kind.reduces for kind in self.kinds) and not self.dtype.supports(self.op):
            raise UsageError(
                f"{self.op.label} makes no sense on {self.dtype.label}; choose another op or dtype"
            )
        return self


def parse_kinds(text: str) -> tuple[CollectiveKind, ...]:
    """Read a list of collectives: names with commas between them, or ``all``.

    Examples
    --------
    >>> [kind.label for kind in parse_kinds("allreduce,broadcast")]
    ['allreduce', 'broadcast']
    """
    if text == "all":
        return KINDS
    known = {kind.label: kind for kind in KINDS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no collective {name!r} to measure; choose from all, {', '.join(known)}"
            )
    return tuple(dict.fromkeys(known[name] for name in names))


def sweep(begin: int, end: int, factor: float = 2.0, increment: int = 0) -> tuple[int, ...]:
    """List sizes from ``begin`` to ``end`` bytes, ``factor`` times or ``increment`` more each than the last.

    Examples
    --------
    >>> sweep(8, 64)
    (8, 16, 32, 64)
    >>> sweep(8, 24, increment=8)
    (8, 16, 24)
    """
    if begin < 0 or end < begin:
        raise UsageError(f"sizes from {begin} to {end} bytes: the first must not exceed the last")
    if increment < 0 or (increment == 0 and begin != end and (factor <= 1 or begin == 0)):
        raise UsageError(
            "sizes must grow: a factor above 1 with a first size above 0, or an increment above 0"
        )
    sizes = [begin]
    while True:
        following = sizes[-1] + increment if increment else max(sizes[-1] + 1, int(sizes[-1] * factor))
        if following > end:
            return tuple(sizes)
        sizes.append(following)


def block_elements(kind: CollectiveKind, nbytes: int, itemsize: int, nranks: int) -> int:
    """Return the count whose whole array has about ``nbytes``: rounded down, 1 at least unless 0 bytes."""
    blocks = 1 if equal_form(kind) in _WHOLE else nranks
    return 0 if nbytes == 0 else max(1, nbytes // (itemsize * blocks))


def total_nbytes(kind: CollectiveKind, count: int, itemsize: int, nranks: int) -> int:
    """Bytes of the whole array, S: n times one rank's block for all but allreduce, broadcast and reduce."""
    return count * itemsize * (1 if equal_form(kind) in _WHOLE else nranks)


def busbw_factor(kind: CollectiveKind, nranks: int) -> float:
    """Return busbw / algbw, which makes rates of all numbers of ranks comparable with those of links.

    References
    ----------
    NVIDIA/nccl-tests, ``doc/PERFORMANCE.md``.
    """
    if kind is CollectiveKind.ALLREDUCE:
        return 2 * (nranks - 1) / nranks
    if kind in _SPREADING:
        return (nranks - 1) / nranks
    return 1.0


def forms(kind: CollectiveKind, scenario: Scenario) -> Sequence[bool]:
    """Which forms of a collective are measured: ``False`` out of place, ``True`` in place."""
    if kind is CollectiveKind.BROADCAST:
        return (True,)
    if kind in (CollectiveKind.BARRIER, CollectiveKind.ALLTOALL):
        return (False,)
    return [form for form, wanted in ((False, scenario.out_of_place), (True, scenario.in_place)) if wanted]
