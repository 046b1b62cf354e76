"""The XML computes the collective: it is executed, thread blocks in random order, every chunk checked."""

from __future__ import annotations

import random
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict, deque

import pytest

from pycomm.collectives.spec import buffer_chunks, input_chunks, output_chunks
from pycomm.errors import UsageError
from pycomm.export import msccl_xml
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import names, plan, planner
from pycomm.schedule import Schedule
from pycomm.schedule.text import parse_schedule
from pycomm.types import CollectiveKind

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
ROOM = 2

Value = Counter


class Machine:
    """A model of the runtime: thread blocks advance when they can, connections hold ROOM messages."""

    def __init__(self, data: bytes, schedule: Schedule, seed: int) -> None:
        self.random = random.Random(seed)
        self.schedule = schedule
        self.pipes: defaultdict[tuple[int, int, int], deque[list[Value]]] = defaultdict(deque)
        self.blocks = {}
        self.memory = {}
        self.done = defaultdict(lambda: -1)
        users = Counter()
        for gpu in ET.fromstring(data).iter("gpu"):
            rank = int(gpu.get("id"))
            self.memory[rank] = {
                buffer: [None] * int(gpu.get(f"{buffer}_chunks")) for buffer in ("i", "o", "s")
            }
            for tb in gpu.iter("tb"):
                steps = [dict(step.items()) for step in tb.iter("step")]
                assert [int(step["s"]) for step in steps] == list(range(len(steps)))
                send, recv, channel = (int(tb.get(key)) for key in ("send", "recv", "chan"))
                self.blocks[rank, int(tb.get("id"))] = (send, recv, channel, deque(steps))
                users[rank, "send", send, channel] += send >= 0
                users[rank, "recv", recv, channel] += recv >= 0
        assert max(users.values(), default=0) <= 1, "two thread blocks share a connection"
        self.load()

    def load(self) -> None:
        s = self.schedule
        for rank in range(s.nranks):
            shape = (s.kind, s.nranks, s.root, s.pieces)
            mine = input_chunks(*shape, rank).tolist()
            natural = "i" if s.kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER) else "o"
            buffer = self.memory[rank][natural if s.in_place else "i"]
            places = buffer_chunks(*shape, rank).tolist() if s.in_place else mine
            if s.in_place and s.kind is CollectiveKind.ALLTOALL:
                places = mine
            for chunk in mine:
                buffer[places.index(chunk)] = Counter({(chunk, rank): 1})

    def step(self, key: tuple[int, int]) -> bool:
        rank, _ = key
        send, recv, channel, steps = self.blocks[key]
        facts = steps[0]
        other = (rank, int(facts["depid"]))
        if int(facts["depid"]) >= 0 and self.done[other] < int(facts["deps"]):
            return False
        count, kind = int(facts["cnt"]), facts["type"]
        src = self.memory[rank][facts["srcbuf"]]
        dst = self.memory[rank][facts["dstbuf"]]
        source, target = int(facts["srcoff"]), int(facts["dstoff"])
        read = [src[source + i] for i in range(count)] if source >= 0 else []
        if kind == "s":
            pipe = self.pipes[rank, send, channel]
            if len(pipe) >= ROOM:
                return False
            assert all(value is not None for value in read), f"rank {rank} sends what it does not have"
            pipe.append([value.copy() for value in read])
        elif kind in ("r", "rrc"):
            pipe = self.pipes[recv, rank, channel]
            if not pipe:
                return False
            got = pipe.popleft()
            assert len(got) == count
            dst[target : target + count] = (
                got if kind == "r" else [a + b for a, b in zip(read, got, strict=True)]
            )
        elif kind == "cpy":
            dst[target : target + count] = [value.copy() for value in read]
        elif kind == "re":
            dst[target : target + count] = [dst[target + i] + read[i] for i in range(count)]
        else:
            assert kind == "nop"
        self.done[key] = int(facts["s"])
        steps.popleft()
        return True

    def run(self) -> None:
        while waiting := [key for key, block in self.blocks.items() if block[3]]:
            self.random.shuffle(waiting)
            assert any(self.step(key) for key in waiting), "the thread blocks wait for one another"
        assert not any(self.pipes.values()), "a message was never received"

    def check(self) -> None:
        s = self.schedule
        shape = (s.kind, s.nranks, s.root, s.pieces)
        owners = defaultdict(list)
        for rank in range(s.nranks):
            for chunk in input_chunks(*shape, rank).tolist():
                owners[chunk].append(rank)
        natural = "i" if s.kind in (CollectiveKind.REDUCE_SCATTER, CollectiveKind.SCATTER) else "o"
        for rank in range(s.nranks):
            wanted = output_chunks(*shape, rank).tolist()
            places = buffer_chunks(*shape, rank).tolist() if s.in_place else wanted
            buffer = self.memory[rank][natural if s.in_place else "o"]
            for chunk in wanted:
                expected = Counter({(chunk, owner): 1 for owner in owners[chunk]})
                assert buffer[places.index(chunk)] == expected, f"rank {rank}, chunk {chunk}"


def cases() -> list:
    """Everything that a planner claims."""
    found = []
    for name in names():
        for kind in KINDS:
            for nranks in (1, 5, 6):
                for in_place in (False, True):
                    root = nranks - 1 if kind.is_rooted else -1
                    request = PlanRequest(kind, nranks, root=root, in_place=in_place)
                    if planner(name).rejects(request) is None:
                        label = f"{name}-{kind.label}-{nranks}{'-in_place' * in_place}"
                        found.append(pytest.param(name, request, id=label))
    return found


@pytest.mark.parametrize(("name", "request_"), cases())
def test_the_exported_program_computes_the_collective(name, request_):
    schedule = plan(name, request_)
    data = msccl_xml(schedule)
    for seed in range(2):
        machine = Machine(data, schedule, seed)
        machine.run()
        machine.check()


def test_long_ops_are_cut_and_signals_left_out():
    schedule = parse_schedule(
        "schedule 1\nname x\ncollective broadcast\nranks 2\nroot 0\npieces 100\n"
        "rank 0\n copy input[0:100] to output[0:100]\n send input[0:100] to 1\n recv nothing from 1\n"
        "rank 1\n recv output[0:100] from 0\n send nothing to 0\n"
    )
    data = msccl_xml(schedule)
    counts = [int(step.get("cnt")) for step in ET.fromstring(data).iter("step")]
    assert sorted(counts) == [28, 28, 28, 72, 72, 72]
    machine = Machine(data, schedule, 0)
    machine.run()
    machine.check()


def test_memory_is_not_overwritten_before_it_was_sent():
    # Rank 0 sends from a place that it then receives into, in another thread block.
    schedule = parse_schedule(
        "schedule 1\nname x\ncollective allgather\nranks 2\npieces 1\nchannels 2\n"
        "rank 0\n copy input[0] to output[1]\n send output[1] to 1\n recv output[1] from 1 on 1\n"
        " copy input[0] to output[0]\n"
        "rank 1\n copy input[0] to output[1]\n recv output[0] from 0\n send output[1] to 0 on 1\n"
    )
    data = msccl_xml(schedule)
    for seed in range(20):
        machine = Machine(data, schedule, seed)
        machine.run()
        machine.check()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("collective barrier\nranks 1\npieces 1\nrank 0\n", "MSCCL XML has no barrier"),
        ("collective allgatherv\nranks 1\npieces 1\nrank 0\n", "MSCCL XML has no allgatherv"),
        (
            "collective allreduce\nranks 1\npieces 1\nrank 0\n" + " copy input[0] to output[0]\n" * 257,
            "257 steps in one thread block, MSCCL allows 256",
        ),
        (
            "collective allreduce\nranks 34\npieces 1\nrank 0\n"
            + "".join(f" send input[0] to {peer}\n" for peer in range(1, 34))
            + "".join(f"rank {peer}\n recv output[0] from 0\n" for peer in range(1, 34)),
            "needs 33 thread blocks on one rank, MSCCL allows 32",
        ),
    ],
)
def test_what_the_format_cannot_say_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        msccl_xml(parse_schedule(f"schedule 1\nname x\n{text}"))
