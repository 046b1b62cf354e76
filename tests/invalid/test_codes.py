"""Wrong schedules, at least one per diagnostic code, with the finding that each must give."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pycomm.errors import Diagnostic, ScheduleError
from pycomm.schedule import OpKind, Schedule, Space
from pycomm.types import CollectiveKind
from pycomm.verify import Limits, check, verify

pytestmark = pytest.mark.timeout(30)

COPY, SEND, RECV, REDUCE, RECV_REDUCE = OpKind
IN, OUT, SCR = Space
Row = tuple[int, ...]
DIAGNOSTICS = Path(__file__).parents[2] / "docs" / "diagnostics.md"


def schedule(
    kind: CollectiveKind,
    *programs: list[Row],
    root: int = -1,
    pieces: int = 1,
    in_place: bool = False,
    channels: int = 1,
    capacity: int = 1,
    scratch: dict[int, list[int]] | None = None,
) -> Schedule:
    """A schedule as it would be written by hand: one list of rows per rank."""
    slots = [(scratch or {}).get(rank, []) for rank in range(len(programs))]
    return Schedule(
        name="wrong",
        kind=kind,
        nranks=len(programs),
        root=root,
        pieces=pieces,
        in_place=in_place,
        channels=channels,
        capacity=capacity,
        ops=np.array([row for program in programs for row in program], np.int32).reshape(-1, 8),
        offsets=np.cumsum([0, *map(len, programs)]).astype(np.int64),
        scratch=np.array([chunk for chunks in slots for chunk in chunks], np.int32),
        scratch_offsets=np.cumsum([0, *map(len, slots)]).astype(np.int64),
    )


def copy(src: Space, i: int, dst: Space, j: int, count: int = 1) -> Row:
    return (COPY, -1, -1, src, i, dst, j, count)


def reduce(src: Space, i: int, dst: Space, j: int, count: int = 1) -> Row:
    return (REDUCE, -1, -1, src, i, dst, j, count)


def send(peer: int, src: Space, i: int, count: int = 1, channel: int = 0) -> Row:
    return (SEND, peer, channel, src, i, -1, -1, count)


def recv(peer: int, dst: Space, j: int, count: int = 1, channel: int = 0) -> Row:
    return (RECV, peer, channel, -1, -1, dst, j, count)


def recv_reduce(peer: int, src: Space, i: int, dst: Space, j: int, count: int = 1) -> Row:
    return (RECV_REDUCE, peer, 0, src, i, dst, j, count)


def broadcast(root_ops: list[Row] | None = None) -> Schedule:
    """Two ranks, root 0; right unless the root's program is replaced."""
    root_ops = [copy(IN, 0, OUT, 0), send(1, IN, 0)] if root_ops is None else root_ops
    return schedule(CollectiveKind.BROADCAST, root_ops, [recv(0, OUT, 0)], root=0)


def allreduce(first: list[Row], second: list[Row], **more: object) -> Schedule:
    return schedule(CollectiveKind.ALLREDUCE, first, second, **more)


def exchange(rank: int) -> list[Row]:
    """A right program of an allreduce on two ranks."""
    return [send(1 - rank, IN, 0), recv_reduce(1 - rank, IN, 0, OUT, 0)]


# Each entry: code, the schedule, the whole text of a diagnostic that it must give. The texts are those of
# docs/diagnostics.md.
CASES: list[tuple[str, Schedule, str]] = [
    (
        "V101",
        replace(broadcast(), root=2),
        "V101: root is 2; broadcast needs one of the ranks 0 to 1",
    ),
    (
        "V101",
        replace(broadcast(), kind=CollectiveKind.SEND, root=-1),
        "V101: send is no collective; schedules are made for collectives only",
    ),
    (
        "V101",
        replace(broadcast(), pieces=0),
        "V101: pieces is 0; it must be between 1 and 2147483647",
    ),
    (
        "V101",
        replace(broadcast(), capacity=0),
        "V101: capacity is 0; it must be between 1 and 2147483647",
    ),
    (
        "V101",
        allreduce(exchange(0), exchange(1), root=1),
        "V101: root is 1; allreduce has none, which is written -1",
    ),
    (
        "V102",
        replace(broadcast(), ops=np.zeros((3, 7), np.int32)),
        "V102: ops is int32 of shape (3, 7); it must be a contiguous int32 table with 8 columns",
    ),
    (
        "V102",
        replace(broadcast(), offsets=np.array([0, 2, 1], np.int64)),
        "V102: offsets must rise from 0 to 3, the length of what it divides",
    ),
    (
        "V102",
        replace(broadcast(), offsets=np.array([0, 3], np.int64)),
        "V102: offsets must hold nranks + 1 = 3 int64 values",
    ),
    (
        "V102",
        replace(broadcast(), scratch=np.zeros(0, np.int64)),
        "V102: scratch is int64 of shape (0,); it must be flat int32",
    ),
    (
        "V103",
        broadcast(root_ops=[(7, -1, -1, 0, 0, 1, 0, 1), send(1, IN, 0)]),
        "V103 rank 0 op 0: op of kind 7: there are kinds 0 to 4",
    ),
    (
        "V104",
        broadcast(root_ops=[(COPY, 1, -1, 0, 0, 1, 0, 1), send(1, IN, 0)]),
        "V104 rank 0 op 0: COPY INPUT[0] to OUTPUT[0]: a local op has no peer or channel",
    ),
    (
        "V104",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), (SEND, 1, 0, 0, 0, 1, 0, 1)]),
        "V104 rank 0 op 1: SEND INPUT[0] to rank 1 on channel 0: it has no destination, which is written -1",
    ),
    (
        "V104",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), (SEND, 1, 0, 5, 0, -1, -1, 1)]),
        "V104 rank 0 op 1: SEND space 5 to rank 1 on channel 0: its source must be in INPUT, "
        "OUTPUT or SCRATCH",
    ),
    (
        "V105",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), send(0, IN, 0)]),
        "V105 rank 0 op 1: SEND INPUT[0] to rank 0 on channel 0: the peer must be another of the 2 ranks",
    ),
    (
        "V106",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), send(1, IN, 0, channel=1)]),
        "V106 rank 0 op 1: SEND INPUT[0] to rank 1 on channel 1: the schedule declares channels 0 to 0",
    ),
    (
        "V107",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), send(1, IN, 0, 2)]),
        "V107 rank 0 op 1: SEND INPUT[0:2] to rank 1 on channel 0: its source must be at least one "
        "chunk and "
        "lie within the 1 of INPUT",
    ),
    (
        "V107",
        broadcast(root_ops=[copy(IN, 0, OUT, -1), send(1, IN, 0)]),
        "V107 rank 0 op 0: COPY INPUT[0] to OUTPUT[-1]: its destination must be at least one chunk and lie "
        "within the 1 of OUTPUT",
    ),
    (
        "V107",
        broadcast(root_ops=[copy(IN, 0, OUT, 0, 0), send(1, IN, 0)]),
        "V107 rank 0 op 0: COPY INPUT[0:0] to OUTPUT[0:0]: its source must be at least one chunk and lie "
        "within the 1 of INPUT",
    ),
    (
        "V108",
        allreduce([send(1, IN, 0), recv_reduce(1, IN, 0, IN, 0)], exchange(1)),
        "V108 rank 0 op 1: RECV_REDUCE INPUT[0] with rank 1 on channel 0 into INPUT[0]: INPUT is "
        "never written",
    ),
    (
        "V109",
        allreduce(exchange(0), exchange(1), in_place=True),
        "V109 rank 0 op 0: SEND INPUT[0] to rank 1 on channel 0: in place, the one buffer is called OUTPUT",
    ),
    (
        "V110",
        schedule(CollectiveKind.ALLREDUCE, [copy(IN, 0, OUT, 0), reduce(OUT, 0, OUT, 0)]),
        "V110 rank 0 op 1: REDUCE OUTPUT[0] into OUTPUT[0]: source and destination overlap",
    ),
    (
        "V111",
        broadcast(root_ops=[copy(IN, 0, OUT, 0), send(1, IN, 0), send(1, IN, 0)]),
        "V111 rank 0: rank 0 sends 2 messages to rank 1 on channel 0, which receives 1",
    ),
    (
        "V111",
        broadcast(root_ops=[copy(IN, 0, OUT, 0)]),
        "V111 rank 1: rank 0 sends 0 messages to rank 1 on channel 0, which receives 1",
    ),
    (
        "V112",
        schedule(
            CollectiveKind.BROADCAST,
            [copy(IN, 0, OUT, 0, 2), send(1, IN, 0, 2)],
            [recv(0, OUT, 0)],
            root=0,
            pieces=2,
        ),
        "V112 rank 1 op 0: RECV OUTPUT[0] from rank 0 on channel 0: the message, op 1 of rank 0, "
        "has 2 chunks "
        "instead of 1",
    ),
    (
        "V113",
        schedule(
            CollectiveKind.BROADCAST,
            [copy(IN, 0, OUT, 0, 2), send(1, IN, 0), send(1, IN, 1)],
            [recv(0, OUT, 1), recv(0, OUT, 0)],
            root=0,
            pieces=2,
        ),
        "V113 rank 1 op 0: RECV OUTPUT[1] from rank 0 on channel 0: chunk 0 of the message has the size of "
        "chunk 0, its place that of chunk 1",
    ),
    (
        "V113",
        schedule(CollectiveKind.ALLREDUCE, [copy(IN, 0, OUT, 1), copy(IN, 1, OUT, 0)], pieces=2),
        "V113 rank 0 op 0: COPY INPUT[0] to OUTPUT[1]: chunk 0 of the source has the size of chunk "
        "0, its place "
        "that of chunk 1",
    ),
    (
        "V114",
        schedule(CollectiveKind.ALLREDUCE, [copy(IN, 0, OUT, 0)], scratch={0: [0, 5]}),
        "V114 rank 0: SCRATCH[1] has the size of chunk 5; there are 1 chunks",
    ),
    (
        "V115",
        schedule(CollectiveKind.BROADCAST, [copy(IN, 0, OUT, 0), reduce(IN, 0, OUT, 0)], root=0),
        "V115 rank 0 op 1: REDUCE INPUT[0] into OUTPUT[0]: broadcast combines nothing",
    ),
    (
        "V301",
        schedule(CollectiveKind.BROADCAST, [send(1, OUT, 0), copy(IN, 0, OUT, 0)], [recv(0, OUT, 0)], root=0),
        "V301 rank 0 op 0: SEND OUTPUT[0] to rank 1 on channel 0: nothing has written OUTPUT[0] before",
    ),
    (
        "V302",
        allreduce([*exchange(0), reduce(IN, 0, OUT, 0)], exchange(1)),
        "V302 rank 0: OUTPUT[0] must hold chunk 0 of every rank once, but counts rank 0 2 times",
    ),
    (
        "V302",
        allreduce([send(1, IN, 0), recv(1, OUT, 0)], exchange(1)),
        "V302 rank 0: OUTPUT[0] must hold chunk 0 of every rank once, but lacks rank 0",
    ),
    (
        "V302",
        schedule(
            CollectiveKind.ALLGATHER,
            [copy(IN, 0, OUT, 0), send(1, IN, 0), recv(1, OUT, 1)],
            [copy(IN, 0, OUT, 0), copy(IN, 0, OUT, 1), send(0, IN, 0), recv(0, SCR, 0)],
            scratch={1: [0]},
        ),
        "V302 rank 1: OUTPUT[0] must hold chunk 0 of rank 0 once, but lacks rank 0, also holds "
        "chunk 1 of rank 1",
    ),
    (
        "V302",
        schedule(
            CollectiveKind.BARRIER,
            [(SEND, 1, 0, -1, -1, -1, -1, 0), copy(IN, 0, OUT, 0)],
            [(RECV, 0, 0, -1, -1, -1, -1, 0), copy(IN, 0, OUT, 0)],
        ),
        "V302 rank 0: OUTPUT[0] must hold chunk 0 of every rank once, but nothing of rank 1 has arrived",
    ),
    (
        "V303",
        broadcast(root_ops=[send(1, IN, 0)]),
        "V303 rank 0: OUTPUT[0] must hold chunk 0 of rank 0 once, but is never written",
    ),
    (
        "V304",
        schedule(
            CollectiveKind.REDUCE,
            [recv_reduce(1, OUT, 0, OUT, 0), send(1, OUT, 0)],
            [send(0, OUT, 0), recv(0, OUT, 0)],
            root=0,
            in_place=True,
        ),
        "V304 rank 1: OUTPUT[0]: reduce must leave this buffer as it was",
    ),
    (
        "V305",
        allreduce(
            [send(1, OUT, 0), recv_reduce(1, OUT, 0, OUT, 0)],
            [send(0, OUT, 0), recv_reduce(0, OUT, 0, OUT, 0)],
            in_place=True,
        ),
        "V305 rank 0 op 1: RECV_REDUCE OUTPUT[0] with rank 1 on channel 0 into OUTPUT[0]: "
        "OUTPUT[0] is lent to "
        "op 0, a send to rank 1, and nothing tells this rank that rank 1 has received it",
    ),
    (
        "V401",
        allreduce(
            [recv_reduce(1, IN, 0, OUT, 0), send(1, IN, 0)], [recv_reduce(0, IN, 0, OUT, 0), send(0, IN, 0)]
        ),
        "V401 rank 0 op 0: deadlock: rank 0 waits in op 0, RECV_REDUCE INPUT[0] with rank 1 on "
        "channel 0 into "
        "OUTPUT[0]; rank 1 waits in op 0, RECV_REDUCE INPUT[0] with rank 0 on channel 0 into OUTPUT[0]",
    ),
    (
        "V402",
        schedule(
            CollectiveKind.ALLREDUCE,
            [send(1, IN, 0), send(1, IN, 1), recv_reduce(1, IN, 0, OUT, 0), recv_reduce(1, IN, 1, OUT, 1)],
            [send(0, IN, 0), send(0, IN, 1), recv_reduce(0, IN, 0, OUT, 0), recv_reduce(0, IN, 1, OUT, 1)],
            pieces=2,
        ),
        "V402 rank 0 op 1: lanes hold 1 unmatched messages, 2 are needed: rank 0 waits in op 1, "
        "SEND INPUT[1] to "
        "rank 1 on channel 0; rank 1 waits in op 1, SEND INPUT[1] to rank 0 on channel 0",
    ),
    (
        "V501",
        replace(
            schedule(CollectiveKind.ALLREDUCE, [copy(IN, 0, OUT, 0)]),
            kind=CollectiveKind.ALLGATHER,
            pieces=2**31 - 1,
            nranks=2,
            offsets=np.array([0, 1, 1], np.int64),
            scratch_offsets=np.zeros(3, np.int64),
        ),
        "V501: 4294967294 global chunks cannot be numbered in 32 bits; use fewer pieces",
    ),
    (
        "V502",
        replace(broadcast(), channels=70000),
        "V502: 70000 channels; at most 65536 are possible",
    ),
    (
        "V503",
        replace(broadcast(), capacity=100000),
        "V503: channels must hold 100000 unmatched messages; executors hold 65536",
    ),
    (
        "V505",
        schedule(CollectiveKind.ALLREDUCE, [copy(IN, 0, OUT, 0)], scratch={0: [0] * 17}),
        "V505 rank 0: 17 scratch slots; at most 16, that is 16 arrays",
    ),
]


@pytest.mark.parametrize(("code", "wrong", "text"), CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(CASES)])
def test_wrong_schedule_gives_its_finding(code: str, wrong: Schedule, text: str) -> None:
    found = verify(wrong)
    assert text in [str(d) for d in found]
    assert code in {d.code for d in found}
    assert found == sorted(found)
    with pytest.raises(
        ScheduleError, match=re.escape(f"'wrong', {wrong.kind.label} on {wrong.nranks} ranks")
    ) as e:
        check(wrong)
    assert e.value.diagnostics == tuple(found)


def test_the_schedules_they_were_made_from_are_right() -> None:
    assert verify(broadcast()) == []
    assert verify(allreduce(exchange(0), exchange(1))) == []


class _OneWay:
    def reachable(self, src: int, dst: int) -> bool:
        return src > dst


def test_routes_are_checked_against_the_network() -> None:
    found = [str(d) for d in verify(broadcast(), _OneWay())]
    assert found == [
        "V201 rank 0 op 1: SEND INPUT[0] to rank 1 on channel 0: the network has no route between "
        "the two ranks"
    ]


def test_limits_are_those_given() -> None:
    found = [d.code for d in verify(broadcast(), limits=Limits(ops_per_rank=1))]
    assert found == ["V504"]


def test_findings_are_capped() -> None:
    rows = [copy(SCR, 0, OUT, 0)] * 500
    found = verify(schedule(CollectiveKind.ALLREDUCE, rows, scratch={0: [0]}))
    assert [d.code for d in found].count("V301") == 100


def test_every_code_is_documented_with_a_message_that_is_given() -> None:
    text = DIAGNOSTICS.read_text()
    documented = re.findall(r"^### (V\d{3}) ", text, re.MULTILINE)
    given = {code for code, _, _ in CASES} | {"V201", "V504"}
    assert set(documented) == given
    assert documented == sorted(documented)
    flat = re.sub(r"\s*\n> |\s+", " ", text)
    for code in sorted(given - {"V201", "V504"}):
        examples = [message for c, _, message in CASES if c == code]
        assert any(example in flat for example in examples), (
            f"{code}: none of its messages is in the document"
        )


def test_sources_use_documented_codes_only() -> None:
    sources = DIAGNOSTICS.parents[1] / "pycomm" / "verify"
    used = {code for path in sources.glob("*.py") for code in re.findall(r'"(V\d{3})"', path.read_text())}
    assert used == set(re.findall(r"^### (V\d{3}) ", DIAGNOSTICS.read_text(), re.MULTILINE))


def test_a_diagnostic_is_a_record() -> None:
    first = verify(broadcast(root_ops=[send(1, IN, 0)]))[0]
    assert isinstance(first, Diagnostic)
    assert (first.code, first.rank, first.op) == ("V303", 0, -1)
