"""MSCCL XML, which the MSCCL runtime and its kin in GPU libraries execute.

Each rank ("gpu") has thread blocks; a thread block runs its steps in order, talks to at most one peer in each
direction on one channel, and every (peer, direction, channel) belongs to one thread block. Steps of different
thread blocks run concurrently, so each step names a step of another thread block that it must follow; one
that has several is preceded by ``nop`` steps that carry the others. Dependences are those of memory: reads
after writes, writes after reads, writes after writes, chunk by chunk.

A step moves at most 72 chunks, so longer ops are cut. Signals (messages of no chunks) are left out: the
format has none, and they order nothing that memory does not. Ragged collectives and barriers have no place in
it.

References
----------
Microsoft/msccl: ``src/include/msccl.h`` (limits); Azure/msccl-tools: ``msccl/language/ir.py`` (attributes).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from pycomm.collectives.spec import input_chunks, output_chunks
from pycomm.errors import UsageError
from pycomm.schedule import OpKind, Schedule, Space
from pycomm.types import CollectiveKind

__all__ = ["COLLECTIVES", "msccl_xml"]

COLLECTIVES: Final = {
    CollectiveKind.ALLREDUCE: "allreduce",
    CollectiveKind.ALLGATHER: "allgather",
    CollectiveKind.REDUCE_SCATTER: "reducescatter",
    CollectiveKind.ALLTOALL: "alltoall",
    CollectiveKind.BROADCAST: "broadcast",
    CollectiveKind.REDUCE: "reduce",
    CollectiveKind.GATHER: "gather",
    CollectiveKind.SCATTER: "scatter",
}
"""Names of the collectives in MSCCL XML."""
_TYPES: Final = {
    OpKind.COPY: "cpy",
    OpKind.SEND: "s",
    OpKind.RECV: "r",
    OpKind.REDUCE: "re",
    OpKind.RECV_REDUCE: "rrc",
}
_BUFFERS: Final = {Space.INPUT: "i", Space.OUTPUT: "o", Space.SCRATCH: "s"}
_MAX_COUNT: Final = 72
_MAX_STEPS: Final = 256
_MAX_BLOCKS: Final = 32
_SLOTS: Final = 2
"""Messages that a connection surely holds (protocol Simple)."""

_Chunk = tuple[int, int]


@dataclass(slots=True)
class _Step:
    kind: str
    src: tuple[str, int]
    dst: tuple[str, int]
    count: int
    waits_for: tuple[int, int] = (-1, -1)
    is_awaited: bool = False


@dataclass(slots=True)
class _Block:
    """A thread block: its peers, its steps, and how far into each other block it has already waited."""

    send: int
    recv: int
    channel: int
    steps: list[_Step] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Memory:
    """Who wrote a chunk last and who has read it since, as (thread block, step)."""

    writer: tuple[int, int] | None = None
    readers: list[tuple[int, int]] = field(default_factory=list)


def msccl_xml(schedule: Schedule) -> bytes:
    """Write the schedule as MSCCL XML.

    Raises
    ------
    UsageError
        If the format cannot say it: ragged collectives, barriers, more thread blocks or steps than it allows.
    """
    coll = COLLECTIVES.get(schedule.kind)
    if coll is None:
        raise UsageError(f"MSCCL XML has no {schedule.kind.label}; it has {', '.join(COLLECTIVES.values())}")
    chunks = [_sizes(schedule, rank) for rank in range(schedule.nranks)]
    algo = ET.Element(
        "algo",
        name=schedule.name,
        proto="Simple",
        nchannels=str(max(schedule.channels, 1)),
        nchunksperloop=str(max(max(sizes[:2]) for sizes in chunks)),
        ngpus=str(schedule.nranks),
        coll=coll,
        inplace=str(int(schedule.in_place)),
        outofplace=str(int(not schedule.in_place)),
        minBytes="0",
        maxBytes="0",
    )
    for rank, (inputs, outputs, scratch) in enumerate(chunks):
        gpu = ET.SubElement(
            algo, "gpu", id=str(rank), i_chunks=str(inputs), o_chunks=str(outputs), s_chunks=str(scratch)
        )
        for index, block in enumerate(_blocks(schedule, rank)):
            _write_block(gpu, index, block)
    ET.indent(algo)
    return ET.tostring(algo, encoding="unicode").encode() + b"\n"


def _sizes(schedule: Schedule, rank: int) -> tuple[int, int, int]:
    """Chunks of a rank's input, output and scratch; in place, a space may be used beyond its natural size."""
    shape = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces)
    sizes = [
        len(input_chunks(*shape, rank)),
        len(output_chunks(*shape, rank)),
        len(schedule.scratch_slots(rank)),
    ]
    for _, _, _, src_space, src_start, dst_space, dst_start, count in schedule.program(rank).tolist():
        for space, start in ((src_space, src_start), (dst_space, dst_start)):
            if space >= 0:
                sizes[space] = max(sizes[space], start + count)
    return sizes[0], sizes[1], sizes[2]


def _write_block(gpu: ET.Element, index: int, block: _Block) -> None:
    peers = {"send": str(block.send), "recv": str(block.recv), "chan": str(block.channel)}
    tb = ET.SubElement(gpu, "tb", {"id": str(index), **peers})
    for number, step in enumerate(block.steps):
        facts = {
            "s": number,
            "type": step.kind,
            "srcbuf": step.src[0],
            "srcoff": step.src[1],
            "dstbuf": step.dst[0],
            "dstoff": step.dst[1],
            "cnt": step.count,
            "depid": step.waits_for[0],
            "deps": step.waits_for[1],
            "hasdep": int(step.is_awaited),
        }
        ET.SubElement(tb, "step", {key: str(value) for key, value in facts.items()})


def _blocks(schedule: Schedule, rank: int) -> list[_Block]:
    """Deal one rank's ops out to thread blocks, with the dependences between them."""
    program: list[list[int]] = schedule.program(rank).tolist()
    blocks, sends, recvs = _lanes(schedule, program)
    memory: defaultdict[_Chunk, _Memory] = defaultdict(_Memory)
    for kind, peer, channel, src_space, src_start, dst_space, dst_start, count in program:
        for done in range(0, count, _MAX_COUNT):
            part = min(_MAX_COUNT, count - done)
            src = [(src_space, src_start + done + i) for i in range(part)] if src_space >= 0 else []
            dst = [(dst_space, dst_start + done + i) for i in range(part)] if dst_space >= 0 else []
            if kind == OpKind.SEND:
                place = sends[peer, channel]
            elif kind in (OpKind.RECV, OpKind.RECV_REDUCE):
                place = recvs[peer, channel]
            else:
                writer = memory[src[0]].writer
                place = writer[0] if writer else 0
            reads = [*src, *dst] if kind == OpKind.REDUCE else src
            step = _Step(_TYPES[OpKind(kind)], _operand(src, "i"), _operand(dst, "o"), part)
            _add(blocks, place, step, reads, dst, memory)
    for block in blocks:
        if len(block.steps) > _MAX_STEPS:
            raise UsageError(
                f"rank {rank} needs {len(block.steps)} steps in one thread block, MSCCL allows {_MAX_STEPS}; "
                "use more channels or fewer pieces"
            )
    return blocks


def _lanes(
    schedule: Schedule, program: list[list[int]]
) -> tuple[list[_Block], dict[_Chunk, int], dict[_Chunk, int]]:
    """Make the thread blocks, and say which serves each (peer, channel) in each direction.

    A block that both sends and receives stops receiving while its send waits for room. That is safe where the
    programs, run one op at a time, end with no more messages under way than connections hold; otherwise each
    direction gets its own block.
    """
    sends: dict[_Chunk, int] = {}
    recvs: dict[_Chunk, int] = {}
    blocks: list[_Block] = []
    shared = schedule.capacity <= _SLOTS
    for channel in sorted({row[2] for row in program if row[1] >= 0 and row[7] > 0}):
        rows = [row for row in program if row[2] == channel and row[7] > 0]
        targets = list(dict.fromkeys(row[1] for row in rows if row[0] == OpKind.SEND))
        sources = list(dict.fromkeys(row[1] for row in rows if row[0] in (OpKind.RECV, OpKind.RECV_REDUCE)))
        for peer in targets:
            sends[peer, channel] = len(blocks)
            blocks.append(_Block(peer, -1, channel))
        first = sends[targets[0], channel] if targets else len(blocks)
        for number, peer in enumerate(sources):
            if shared and number < len(targets):
                recvs[peer, channel] = first + number
                blocks[first + number].recv = peer
            else:
                recvs[peer, channel] = len(blocks)
                blocks.append(_Block(-1, peer, channel))
        used = sum(block.channel == channel for block in blocks)
        if used > _MAX_BLOCKS:
            raise UsageError(
                f"channel {channel} needs {used} thread blocks on one rank, MSCCL allows {_MAX_BLOCKS}; "
                "use an algorithm with fewer peers per rank"
            )
    if not blocks and program:
        blocks.append(_Block(-1, -1, 0))
    return blocks, sends, recvs


def _operand(chunks: list[_Chunk], otherwise: str) -> tuple[str, int]:
    return (_BUFFERS[Space(chunks[0][0])], chunks[0][1]) if chunks else (otherwise, -1)


def _add(
    blocks: list[_Block],
    place: int,
    step: _Step,
    reads: list[_Chunk],
    writes: list[_Chunk],
    memory: defaultdict[_Chunk, _Memory],
) -> None:
    """Append a step after the steps it depends on, ``nop`` steps carrying all but one of the dependences."""
    needed: dict[int, int] = {}
    writers = [memory[chunk].writer for chunk in (*reads, *writes)]
    readers = [reader for chunk in writes for reader in memory[chunk].readers]
    for other, number in (*filter(None, writers), *readers):
        if other != place:
            needed[other] = max(needed.get(other, -1), number)
    block = blocks[place]
    waits = [
        (other, number) for other, number in sorted(needed.items()) if block.seen.get(other, -1) < number
    ]
    for other, number in waits:
        block.seen[other] = number
        blocks[other].steps[number].is_awaited = True
    for wait in waits[:-1]:
        block.steps.append(_Step("nop", ("i", -1), ("o", -1), 0, wait))
    if waits:
        step.waits_for = waits[-1]
    me = (place, len(block.steps))
    block.steps.append(step)
    for chunk in reads:
        memory[chunk].readers.append(me)
    for chunk in writes:
        memory[chunk].writer = me
        memory[chunk].readers.clear()
