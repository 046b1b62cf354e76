"""Runs every planner's schedule of every collective it claims on the native engine and checks every element.

    python tests/multiproc/schedules.py [--ranks 1-16] [--tcp]

For each number of ranks: plans and proves all schedules (each root class, in place and out of place, equal
and ragged blocks) in one process, forks the ranks, and lets them run one after the other against the oracle.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass

import numpy as np
from ranks import Failed, Say, run_to_end, start

import pycomm
from pycomm import verify
from pycomm.backends.base import Call
from pycomm.collectives.reference import evaluate
from pycomm.collectives.spec import equal_form
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.passes import synchronise
from pycomm.types import CollectiveKind as Kind
from pycomm.types import DType, ReduceOp

COUNT = 37
IN_PLACE = (
    Kind.ALLREDUCE,
    Kind.ALLGATHER,
    Kind.ALLGATHERV,
    Kind.REDUCE_SCATTER,
    Kind.ALLTOALL,
    Kind.BROADCAST,
)


@dataclass(frozen=True)
class Case:
    """One schedule to run."""

    name: str
    request: PlanRequest
    schedule: Schedule

    def __str__(self) -> str:
        r = self.request
        return f"{self.name} {r.kind.label} n={r.nranks} root={r.root} in_place={r.in_place} hosts={r.hosts}"


def cases(n: int) -> list[Case]:
    found = []
    for kind in Kind:
        if kind in (Kind.SEND, Kind.RECV):
            continue
        roots = sorted({0, n // 2, n - 1}) if kind.is_rooted else [-1]
        places = [False, True] if kind in IN_PLACE else [False]
        hosts = tuple(r * 3 // n for r in range(n))
        for root in roots:
            for in_place in places:
                for name in registry.names():
                    request = PlanRequest(kind, n, root, in_place, hosts if name == "hierarchical" else ())
                    if registry.planner(name).rejects(request) is not None:
                        continue
                    schedule = registry.plan(name, request)
                    schedule = synchronise(schedule) if kind.is_rooted else schedule
                    verify.check(schedule)
                    found.append(Case(name, request, schedule))
    return found


def counts_of(kind: Kind, n: int) -> np.ndarray | None:
    """Ragged counts that include zeros."""
    if not kind.is_ragged:
        return None
    size = n * n if kind is Kind.ALLTOALLV else n
    return (np.arange(size, dtype=np.int64) * 7 + 3) % 11


def inputs_of(kind: Kind, n: int, root: int, counts: np.ndarray | None) -> list[np.ndarray | None]:
    """What every rank contributes: values that depend on rank and position."""
    form = equal_form(kind)
    inputs: list[np.ndarray | None] = []
    for rank in range(n):
        if form in (Kind.ALLREDUCE, Kind.REDUCE, Kind.BROADCAST):
            count = COUNT
        elif form is Kind.ALLTOALL:
            count = n * COUNT if counts is None else int(counts.reshape(n, n)[rank].sum())
        elif form in (Kind.ALLGATHER, Kind.GATHER):
            count = COUNT if counts is None else int(counts[rank])
        else:
            count = n * COUNT if counts is None else int(counts.sum())
        has_input = form not in (Kind.BROADCAST, Kind.SCATTER) or rank == root
        inputs.append((np.arange(count, dtype=np.int32) * 5 + rank * 1009) if has_input else None)
    return inputs


def run(comm: pycomm.Communicator, case: Case) -> None:
    request, n, rank = case.request, comm.size, comm.rank
    kind, form = request.kind, equal_form(request.kind)
    counts = counts_of(kind, n)
    if kind is Kind.BARRIER:
        comm._comm.launch(Call(kind, DType.UINT8, schedule=case.schedule), blocking=True)
        return
    inputs = inputs_of(kind, n, request.root, counts)
    wanted = evaluate(kind, DType.INT32, ReduceOp.SUM, inputs, root=request.root, counts=counts)[rank]
    mine = inputs[rank]
    send = None if mine is None else mine.copy()
    recv = None if wanted is None else np.full_like(wanted, -1)
    part = slice(None)
    if request.in_place or form is Kind.BROADCAST:
        if form is Kind.ALLGATHER:
            begin = rank * COUNT if counts is None else int(counts[:rank].sum())
            recv[begin : begin + len(mine)] = mine
            send = recv
        elif form is Kind.REDUCE_SCATTER:
            recv = send
            part = slice(rank * COUNT, (rank + 1) * COUNT)
        elif request.in_place or send is None:
            if send is None:
                send = recv
            recv = send
    call = Call(
        kind,
        DType.INT32,
        root=request.root,
        count=0 if counts is not None else COUNT,
        send=None if send is None else send.view(np.uint8),
        recv=None if recv is None else (send if recv is send else recv).view(np.uint8),
        counts=counts,
        schedule=case.schedule,
    )
    comm._comm.launch(call, blocking=True)
    if wanted is not None and not np.array_equal(recv[part], wanted):
        wrong = np.flatnonzero(recv[part] != wanted)
        raise Failed(f"{case}: rank {rank}: {len(wrong)} wrong elements, the first at {wrong[0]}")
    if not request.in_place and send is not recv and send is not None and not np.array_equal(send, mine):
        raise Failed(f"{case}: rank {rank}: the input was altered")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", default="1-16")
    parser.add_argument("--tcp", action="store_true", help="without shared memory, as between hosts")
    args = parser.parse_args()
    os.environ["PYCOMM_SHM"] = "0" if args.tcp else "1"
    first, _, last = args.ranks.partition("-")
    total = 0
    for n in range(int(first), int(last or first) + 1):
        todo = cases(n)

        def body(comm: pycomm.Communicator, _: Say, todo: list[Case] = todo) -> None:
            for case in todo:
                run(comm, case)

        ranks = start(n, body, timeout_s=60)
        try:
            run_to_end(ranks, 120)
        except Failed as failure:
            print(f"schedules: FAILED: {failure}")
            return 1
        total += len(todo)
    kinds = len({case.request.kind for case in todo})
    print(
        f"schedules: {total} schedules of {len(registry.names())} planners and {kinds} collectives on "
        f"{args.ranks} ranks{', tcp' if args.tcp else ''}: proved, run, every element right"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
