"""How a call is performed: by the backend's own collective, or by which schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pycomm.backends.base import Call, Capabilities
from pycomm.calls import out_of_place
from pycomm.collectives.reference import block_counts
from pycomm.collectives.spec import equal_form
from pycomm.cost import Links
from pycomm.errors import PlanningError, Unsupported, UsageError
from pycomm.planner.base import PlanRequest
from pycomm.schedule import Schedule
from pycomm.types import CollectiveKind, DType, ReduceOp

if TYPE_CHECKING:
    from pycomm.group_network import Placed
    from pycomm.tuner import Explanation
    from pycomm.tuner.table import Table

__all__ = ["OWN", "Forced", "Selector", "forced_algorithms"]

OWN = "own"
"""Name of the algorithm that is the backend's own collective."""

_SYMMETRIC = (
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALL,
)
_HALF = (DType.FLOAT16, DType.BFLOAT16, DType.FLOAT8_E4M3FN, DType.FLOAT8_E5M2)


@dataclass(frozen=True, slots=True)
class Forced:
    """An algorithm that the environment asks for; ``everywhere`` means: for whatever collective it serves."""

    algorithm: str
    everywhere: bool = False


def forced_algorithms(text: str) -> dict[CollectiveKind, Forced]:
    """Read ``PYCOMM_ALGO``: ``"ring"`` wherever it serves, ``"allreduce:ring,reduce:binomial"`` for some."""
    labels = {kind.label: kind for kind in CollectiveKind}
    forced: dict[CollectiveKind, Forced] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        label, colon, algorithm = part.rpartition(":")
        if colon and label not in labels:
            raise UsageError(f"PYCOMM_ALGO: {label!r} is not a collective; choose one of {', '.join(labels)}")
        if colon:
            forced[labels[label]] = Forced(algorithm)
        else:
            forced = {kind: forced.get(kind, Forced(algorithm, True)) for kind in CollectiveKind}
    return forced


class Selector:
    """Chooses for the calls of one communicator. Every rank chooses alike, since ranks make equal calls.

    Parameters
    ----------
    capabilities, backend
        What the backend offers, and its name for messages.
    nranks, rank
        The group.
    forced
        Algorithm by collective, from ``PYCOMM_ALGO``.
    hosts
        Returns the host number of each rank, given the call's deadline in seconds; asked when a schedule is
        first needed.
    network
        Returns the group's network or ``None``, given the call's deadline; asked when a schedule is first
        needed.
    table
        Returns the measured table or ``None``, as ``network``; ``None`` itself where no table is named.
    agree
        Called with every schedule before its first run, and the call's deadline in seconds; raises when ranks
        do not hold the same one.
    """

    def __init__(
        self,
        capabilities: Capabilities,
        backend: str,
        nranks: int,
        rank: int,
        forced: dict[CollectiveKind, Forced],
        hosts: Callable[[float | None], tuple[int, ...]],
        network: Callable[[float | None], Placed | None],
        table: Callable[[float | None], Table | None] | None,
        agree: Callable[[Schedule, float | None], None],
    ) -> None:
        self._capabilities, self._backend = capabilities, backend
        self._nranks, self._rank = nranks, rank
        self._forced, self._hosts, self._agree = forced, hosts, agree
        self._network, self._table = network, table
        self._known: set[bytes] = set()
        self._chosen: dict[tuple[CollectiveKind, int, bool, int, str | None], Schedule] = {}

    def forget(self) -> None:
        """Choose anew from now on: what choices depend on has changed."""
        self._chosen.clear()

    def has_own(self, kind: CollectiveKind, dtype: DType, op: ReduceOp) -> bool:
        """Whether the backend performs the collective itself."""
        offered = self._capabilities
        if dtype not in offered.own.get(kind, frozenset()):
            return False
        return not kind.reduces or op in offered.reductions.get(dtype, frozenset())

    def can_schedule(self, kind: CollectiveKind, dtype: DType, op: ReduceOp) -> bool:
        """Whether a schedule can perform the collective on this backend."""
        offered = self._capabilities
        if not offered.runs_schedules:
            return False
        return not kind.reduces or op in offered.schedule_reductions.get(dtype, frozenset())

    def why_not(self, call: Call, algorithm: str | None) -> str | None:
        """Why the call cannot be performed, as one sentence; ``None`` when it can."""
        kind, dtype, op = call.kind, call.dtype, call.op
        what = f"{kind.label} of {dtype.label}" + (f" with op {op.label!r}" if kind.reduces else "")
        name = self._algorithm(kind, algorithm)
        own, scheduled = self.has_own(kind, dtype, op), self.can_schedule(kind, dtype, op)
        if name == OWN and not own:
            return f"backend {self._backend!r} has no {what} of its own; leave out algorithm='own'"
        if name not in (None, OWN) and not scheduled:
            return f"backend {self._backend!r} cannot run a schedule for {what}; leave out algorithm={name!r}"
        if not own and not scheduled:
            return f"backend {self._backend!r} does not offer {what}; use another dtype, op or backend"
        if call.round_once and dtype in _HALF and kind.reduces and not (own and name in (None, OWN)):
            return (
                f"backend {self._backend!r} cannot round once in {what}: its schedules round per contribution"
            )
        return None

    def _algorithm(self, kind: CollectiveKind, algorithm: str | None) -> str | None:
        """Name of the algorithm to use: what the call says, then what the environment says."""
        if algorithm is not None:
            return algorithm
        forced = self._forced.get(kind)
        if forced is None or (forced.everywhere and not self._serves(forced.algorithm, kind)):
            return None
        return forced.algorithm

    def _serves(self, name: str, kind: CollectiveKind) -> bool:
        if name == OWN:
            return True
        from pycomm.planner import registry  # deferred: most programs never plan

        request = PlanRequest(kind, self._nranks, 0 if kind.is_rooted else -1, hosts=self._hosts(None))
        return registry.planner(name).rejects(request) is None

    def choose(self, call: Call, algorithm: str | None = None) -> Call:
        """Settle how the call is performed; returns it with its schedule, or as it is for the backend's own.

        Raises
        ------
        Unsupported
            The backend does not offer it.
        PlanningError
            The algorithm that was asked for cannot serve it.
        """
        reason = self.why_not(call, algorithm)
        if reason is not None:
            raise Unsupported(reason)
        name = self._algorithm(call.kind, algorithm)
        own = self.has_own(call.kind, call.dtype, call.op)
        if name == OWN or (name is None and own and self._measured(call) in (None, OWN)):
            return call
        in_place = call.recv is call.send and call.send is not None
        if in_place and equal_form(call.kind) not in (*_SYMMETRIC, CollectiveKind.BROADCAST):
            # Only the root knows whether its call is in place, and a schedule is the same for all.
            call, in_place = out_of_place(call, self._nranks, self._rank), False
        elif equal_form(call.kind) in (CollectiveKind.REDUCE, CollectiveKind.GATHER, CollectiveKind.SCATTER):
            in_place = False
        try:
            schedule = self._plan(call, name, in_place)
        except PlanningError:
            if not in_place:
                raise
            call = out_of_place(call, self._nranks, self._rank)
            schedule = self._plan(call, name, False)
        self._prove(schedule, call.timeout_s)
        return replace(call, schedule=schedule)

    def _measured(self, call: Call) -> str | None:
        """Algorithm that the measured table names for the call."""
        table = None if self._table is None else self._table(call.timeout_s)
        if table is None or not self.can_schedule(call.kind, call.dtype, call.op):
            return None
        from pycomm.tuner.table import key_of

        entry = table.find(key_of(self._request(call, False)), equal_form(call.kind), self._nbytes(call))
        return None if entry is None else entry.algorithm

    def _nbytes(self, call: Call) -> int:
        """Size of a call, as the tuner counts it."""
        blocks = block_counts(call.kind, self._nranks, call.count, call.counts)
        nbytes = int(blocks.sum()) * call.dtype.itemsize
        return nbytes // self._nranks if equal_form(call.kind) is CollectiveKind.ALLTOALL else nbytes

    def _request(self, call: Call, in_place: bool) -> PlanRequest:
        placed = self._network(call.timeout_s)
        topology, devices = placed or (None, ())
        return PlanRequest(
            call.kind,
            self._nranks,
            call.root,
            in_place,
            self._hosts(call.timeout_s),
            topology=topology,
            devices=devices,
        )

    def _plan(self, call: Call, name: str | None, in_place: bool) -> Schedule:
        nbytes = self._nbytes(call)
        key = (call.kind, call.root, in_place, nbytes, name)
        found = self._chosen.get(key)
        if found is None:
            from pycomm import tuner  # deferred: most programs never plan

            table = None if self._table is None else self._table(call.timeout_s)
            request = self._request(call, in_place)
            found = tuner.choose(request, nbytes, Links(), name, table).schedule
            if len(self._chosen) >= _MAX_CHOSEN:
                self._chosen.clear()
            self._chosen[key] = found
        return found

    def explain(self, call: Call) -> Explanation:
        """Say what :meth:`choose` does with a call, and why. Collective as long as no schedule was needed."""
        from pycomm import tuner  # deferred: most programs never plan

        table = None if self._table is None else self._table(call.timeout_s)
        request = self._request(call, False)
        forced = self._algorithm(call.kind, None)
        own = self.has_own(call.kind, call.dtype, call.op) and forced in (None, OWN)
        measured = self._measured(call)
        if measured == OWN and not own:
            table = None
        elif measured not in (None, OWN):
            own = False
        return tuner.explain(
            request, self._nbytes(call), Links(), table=table, algorithm=OWN if own else forced
        )

    def _prove(self, schedule: Schedule, timeout_s: float | None) -> None:
        """Verify a schedule, and compare it with the other ranks', before it first runs."""
        digest = schedule.digest()
        if digest in self._known:
            return
        if digest not in _PROVED:
            from pycomm import verify  # deferred with the planners

            verify.check(schedule)
            _PROVED.add(digest)
        if not self._capabilities.compares_calls and self._nranks > 1:
            self._agree(schedule, timeout_s)
        self._known.add(digest)


_PROVED: set[bytes] = set()
_MAX_CHOSEN = 1024
