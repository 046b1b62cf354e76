"""The plan computes the collective: it is executed, ranks in random order, every chunk checked."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest

from pycomm.collectives.spec import buffer_chunks, input_chunks, output_chunks
from pycomm.errors import UsageError
from pycomm.export.mscclpp import mscclpp_json
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import names, plan, planner
from pycomm.schedule import Schedule
from pycomm.types import CollectiveKind

ON_GRAPHS = ("tree_packing", "free_root", "flow_alltoall")
"""Planners that need a topology; they have tests of their own."""
KINDS = [
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALL,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
    CollectiveKind.GATHER,
    CollectiveKind.SCATTER,
]


class Machine:
    """A model of the executor: each rank's one thread block advances when it can; signals are counted."""

    def __init__(self, schedule: Schedule, seed: int) -> None:
        self.schedule, self.random = schedule, random.Random(seed)
        self.gpus = json.loads(mscclpp_json(schedule))["gpus"]
        self.memory = [
            {
                space: [None] * gpu[f"{name}_chunks"]
                for space, name in (("i", "input"), ("o", "output"), ("s", "scratch"))
            }
            for gpu in self.gpus
        ]
        self.counter = [0] * len(self.gpus)
        self.signals = Counter()
        self.load()

    def shape(self, rank: int) -> tuple:
        s = self.schedule
        return s.kind, s.nranks, s.root, s.pieces, rank

    def load(self) -> None:
        for rank in range(self.schedule.nranks):
            mine = input_chunks(*self.shape(rank)).tolist()
            at_input = self.schedule.kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER)
            space = "i" if at_input or not self.schedule.in_place else "o"
            places = buffer_chunks(*self.shape(rank)).tolist() if self.schedule.in_place else mine
            for chunk in mine:
                self.memory[rank][space][places.index(chunk)] = Counter({(chunk, rank): 1})

    def lane(self, rank: int, index: int) -> tuple[int, int]:
        """Peer of a channel, and which of the channels to that peer it is."""
        (block,) = self.gpus[rank]["threadblocks"]
        targets = self.gpus[rank]["channels"][0]["connected_to"]
        number = block["channels"][0]["channel_ids"][index]
        return targets[number], targets[:number].count(targets[number])

    def advance(self, rank: int) -> bool:
        ops = self.gpus[rank]["threadblocks"][0]["ops"]
        if self.counter[rank] == len(ops):
            return False
        op = ops[self.counter[rank]]
        lanes = [self.lane(rank, index) for index in op.get("channel_ids", [])]
        if op["name"] in ("wait", "rlxwait"):
            keys = [(peer, rank, which) for peer, which in lanes]
            if not all(self.signals[key] for key in keys):
                return False
            self.signals.subtract(keys)
        elif op["name"] in ("signal", "rlxsignal"):
            self.signals.update((rank, peer, which) for peer, which in lanes)
        elif op["name"] != "nop":
            self.move(rank, op)
        self.counter[rank] += 1
        return True

    def buffer(self, rank: int, place: dict) -> tuple[list, slice]:
        if "buffer_id" in place:
            (refs,) = self.gpus[rank]["threadblocks"][0]["remote_buffer_refs"]
            remote = self.gpus[rank]["remote_buffers"][refs["remote_buffer_ids"][place["buffer_id"]]]
            memory = self.memory[remote["rank"]][remote["type"]]
        else:
            memory = self.memory[rank][place["type"]]
        part = slice(place["index"], place["index"] + place["size"])
        assert part.stop <= len(memory)
        return memory, part

    def move(self, rank: int, op: dict) -> None:
        assert op["name"] in ("put", "copy", "re")
        values = [memory[part] for memory, part in (self.buffer(rank, place) for place in op["src_buff"])]
        assert all(chunk is not None for value in values for chunk in value), "nothing is there yet"
        (target,) = op["dst_buff"]
        memory, part = self.buffer(rank, target)
        memory[part] = [sum(chunks, Counter()) for chunks in zip(*values, strict=True)]

    def run(self) -> None:
        while True:
            order = list(range(len(self.gpus)))
            self.random.shuffle(order)
            if not any([self.advance(rank) for rank in order for _ in range(self.random.randint(1, 5))]):
                break
        assert self.counter == [len(gpu["threadblocks"][0]["ops"]) for gpu in self.gpus], "it hangs"
        assert not +self.signals, "signals are left"

    def check(self) -> None:
        s = self.schedule
        space = (
            "i" if s.in_place and s.kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER) else "o"
        )
        for rank in range(s.nranks):
            buffer = self.memory[rank][space]
            wanted = output_chunks(*self.shape(rank)).tolist()
            names = buffer_chunks(*self.shape(rank)).tolist() if s.in_place else wanted
            for chunk in wanted:
                got = buffer[names.index(chunk)]
                owners = [r for r in range(s.nranks) if chunk in input_chunks(*self.shape(r)).tolist()]
                assert got == Counter((chunk, owner) for owner in owners), (rank, chunk, got)


@pytest.mark.parametrize("nranks", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", [name for name in names() if name not in ON_GRAPHS])
def test_the_plan_computes_the_collective(name, nranks):
    for kind in KINDS:
        for in_place in (False, True):
            request = PlanRequest(kind, nranks, nranks - 1 if kind.is_rooted else -1, in_place, pieces=2)
            if planner(name).rejects(request) or (in_place and kind is CollectiveKind.ALLTOALL):
                continue
            machine = Machine(plan(name, request), seed=nranks)
            machine.run()
            machine.check()


def test_what_the_format_does_not_have_is_refused():
    with pytest.raises(UsageError, match="barrier"):
        mscclpp_json(plan("recursive_doubling", PlanRequest(CollectiveKind.BARRIER, 2)))


def test_equal_schedules_give_equal_plans():
    request = PlanRequest(CollectiveKind.ALLREDUCE, 4)
    assert mscclpp_json(plan("ring", request)) == mscclpp_json(plan("ring", request))
