"""MSCCL++ execution plans (JSON), which its executor runs on GPUs.

One thread block per rank runs the rank's program op by op. A message is a ``put`` into a place of the
receiver's scratch that no other message uses, and a ``signal``; its receive is a ``wait``, and a ``copy`` or
a reduction out of that place. So no sender ever waits for room, and no program can hang that runs to its end
one op at a time. Each peer and channel number has a channel of its own, whose signals are counted. A run
begins with a signal and a wait on each: nobody writes into the scratch of a rank that is still in the run
before.

``nop`` is the format's word for: all threads of the block have come this far. It stands behind every op.

Scratch grows with all that a rank receives; these plans are for people who try a schedule out there, and for
the messages of a few MiB that the executor is used for.

References
----------
microsoft/mscclpp: ``src/core/executor/execution_plan.cc`` (keys), ``docs/dsl/concepts.md`` (meaning),
commit of 2026.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from pycomm.collectives.spec import input_chunks, output_chunks
from pycomm.errors import UsageError
from pycomm.export.msccl import COLLECTIVES
from pycomm.schedule import OpKind, Schedule, Space

__all__ = ["mscclpp_json"]

_BUFFERS: Final = {Space.INPUT: "i", Space.OUTPUT: "o", Space.SCRATCH: "s"}
_NOP: Final = {"name": "nop"}
_RECEIVES: Final = (OpKind.RECV, OpKind.RECV_REDUCE)

_Lane = tuple[int, int]  # peer, channel


def mscclpp_json(schedule: Schedule) -> bytes:
    """Write the schedule as an MSCCL++ execution plan.

    Raises
    ------
    UsageError
        It is a ragged collective or a barrier, which the format does not have.
    """
    label = COLLECTIVES.get(schedule.kind)
    if label is None:
        raise UsageError(
            f"MSCCL++ plans have no {schedule.kind.label}; they have {', '.join(COLLECTIVES.values())}"
        )
    programs = [schedule.program(rank).tolist() for rank in range(schedule.nranks)]
    places = [_inbox(program, len(schedule.scratch_slots(rank))) for rank, program in enumerate(programs)]
    plan = {
        "name": f"{schedule.name}-{label}",
        "collective": label,
        "protocol": "Simple",
        "inplace": schedule.in_place,
        "reuse_resources": False,
        "gpus": [_gpu(schedule, rank, programs, places) for rank in range(schedule.nranks)],
        "num_threads_per_block": 1024,
        "use_double_scratch_buffer": False,
        "buffer_alignment": 16,
        "min_message_size": 0,
        "max_message_size": 2**64 - 1,
    }
    return msgspec.json.format(msgspec.json.encode(plan), indent=1) + b"\n"


def _inbox(program: list[list[int]], scratch: int) -> dict[tuple[int, int, int], int]:
    """Find where in a rank's scratch each message lands: by source, channel and number; under -1, the end."""
    number: dict[_Lane, int] = {}
    places: dict[tuple[int, int, int], int] = {}
    end = scratch
    for kind, peer, channel, _, _, _, _, count in program:
        if kind in _RECEIVES:
            number[peer, channel] = number.get((peer, channel), -1) + 1
            places[peer, channel, number[peer, channel]] = end
            end += count
    places[-1, -1, -1] = end
    return places


def _gpu(
    schedule: Schedule,
    rank: int,
    programs: list[list[list[int]]],
    places: list[dict[tuple[int, int, int], int]],
) -> dict[str, Any]:
    program = programs[rank]
    lanes = sorted({(row[1], row[2]) for row in program if row[1] >= 0})
    peers = sorted({peer for peer, _ in lanes})
    ops: list[dict[str, Any]] = []
    for name in ("rlxsignal", "rlxwait"):
        if lanes:
            ops += [{"name": name, "channel_ids": list(range(len(lanes))), "channel_type": "memory"}, _NOP]
    counted: dict[tuple[bool, int, int], int] = {}
    for row in program:
        kind, peer, channel = OpKind(row[0]), row[1], row[2]
        number = 0
        if peer >= 0:
            key = kind is OpKind.SEND, peer, channel
            number = counted[key] = counted.get(key, -1) + 1
        at = (
            places[peer][rank, channel, number]
            if kind is OpKind.SEND
            else places[rank].get((peer, channel, number), 0)
        )
        lane = lanes.index((peer, channel)) if peer >= 0 else 0
        for op in _ops(row, lane, peers.index(peer) if peer >= 0 else 0, at):
            ops += [op, _NOP]
    shape = (schedule.kind, schedule.nranks, schedule.root, schedule.pieces, rank)
    inputs, outputs = len(input_chunks(*shape)), len(output_chunks(*shape))
    for row in program:  # in place, a space may be used beyond its natural size
        for space, start in ((row[3], row[4]), (row[5], row[6])):
            inputs = max(inputs, start + row[7]) if space == Space.INPUT else inputs
            outputs = max(outputs, start + row[7]) if space == Space.OUTPUT else outputs
    block = {
        "id": 0,
        "ops": ops,
        "channels": [{"channel_type": "memory", "channel_ids": list(range(len(lanes)))}] if lanes else [],
        "remote_buffer_refs": [
            {"access_channel_type": "memory", "remote_buffer_ids": list(range(len(peers)))}
        ]
        if peers
        else [],
    }
    return {
        "id": rank,
        "input_chunks": inputs,
        "output_chunks": outputs,
        "scratch_chunks": places[rank][-1, -1, -1],
        "threadblocks": [block],
        "channels": [{"channel_type": "memory", "connected_to": [peer for peer, _ in lanes]}]
        if lanes
        else [],
        "remote_buffers": [{"rank": peer, "type": "s", "access_channel_types": ["memory"]} for peer in peers],
        "semaphores": [],
    }


def _ops(row: list[int], lane: int, remote: int, at: int) -> list[dict[str, Any]]:
    """Ops that one row becomes; ``at`` is the place of its message in the receiver's scratch."""
    kind, _, _, src_space, src_start, dst_space, dst_start, count = row
    src = {"type": _BUFFERS[Space(src_space)], "index": src_start, "size": count} if src_space >= 0 else {}
    dst = {"type": _BUFFERS[Space(dst_space)], "index": dst_start, "size": count} if dst_space >= 0 else {}
    channel = {"channel_ids": [lane], "channel_type": "memory"}
    landed = {"type": "s", "index": at, "size": count}
    wait = {"name": "wait", **channel}
    reduction = {"name": "re", "dst_buff": [dst], "reduce_op": "sum"}
    if kind == OpKind.SEND:
        far = {"buffer_id": remote, "index": at, "size": count}
        signal = {"name": "signal", **channel}
        return (
            [{"name": "put", "src_buff": [src], "dst_buff": [far], **channel}, signal] if count else [signal]
        )
    if kind == OpKind.RECV:
        return [wait, {"name": "copy", "src_buff": [landed], "dst_buff": [dst]}] if count else [wait]
    if kind == OpKind.RECV_REDUCE:
        return [wait, {**reduction, "src_buff": [src, landed]}]
    if kind == OpKind.REDUCE:
        return [{**reduction, "src_buff": [dst, src]}]
    return [{"name": "copy", "src_buff": [src], "dst_buff": [dst]}]
