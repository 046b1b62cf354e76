"""The file forms of a schedule: msgpack, compact and fast, and JSON, for other programs.

Both open with ``format`` and ``format_version``, refuse keys they do not know, and check every length before
a schedule is built; nothing is ever unpickled. The msgpack form stores tables as little-endian bytes and ends
with the schedule's digest, so damage is noticed; four million ops are written or read in about a second. The
JSON form spells the same facts as lists, one list of rows per rank.

A decoded schedule is well-formed: its programs and scratch slots can be walked. Whether it is *right* is for
:mod:`pycomm.verify` to say.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from pycomm.errors import UsageError
from pycomm.schedule.ir import FORMAT_VERSION, NCOLUMNS, Schedule
from pycomm.types import CollectiveKind

__all__ = ["assemble", "decode", "decode_json", "encode", "encode_json", "malformed"]

_FORMAT: Final = "pycomm-schedule"
_INT32: Final = (-(2**31), 2**31 - 1)


class _Head(msgspec.Struct):
    format: str
    format_version: int


class _Common(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    format_version: int
    name: str
    collective: str
    ranks: int
    root: int
    pieces: int
    in_place: bool
    channels: int
    capacity: int


class _Binary(_Common, forbid_unknown_fields=True):
    offsets: bytes
    ops: bytes
    scratch_offsets: bytes
    scratch: bytes
    digest: bytes


class _Json(_Common, forbid_unknown_fields=True):
    programs: list[list[tuple[int, int, int, int, int, int, int, int]]]
    scratch: list[list[int]]


def malformed(schedule: Schedule) -> str | None:
    """Say why a schedule's tables do not fit together, as one sentence; ``None`` when they do."""
    for name, array, dtype, shape in (
        ("ops", schedule.ops, np.int32, (len(schedule.ops), NCOLUMNS)),
        ("scratch", schedule.scratch, np.int32, (len(schedule.scratch),)),
        ("offsets", schedule.offsets, np.int64, (schedule.nranks + 1,)),
        ("scratch_offsets", schedule.scratch_offsets, np.int64, (schedule.nranks + 1,)),
    ):
        if array.dtype != dtype or array.shape != shape:
            return (
                f"{name} is {array.dtype} of shape {array.shape}, expected {np.dtype(dtype)} of shape {shape}"
            )
    for name, bounds, total in (
        ("offsets", schedule.offsets, len(schedule.ops)),
        ("scratch_offsets", schedule.scratch_offsets, len(schedule.scratch)),
    ):
        if bounds[0] != 0 or bounds[-1] != total or bool((np.diff(bounds) < 0).any()):
            return f"{name} must rise from 0 to {total}"
    return None


def assemble(
    *,
    name: str,
    kind: CollectiveKind,
    nranks: int,
    root: int,
    pieces: int,
    in_place: bool,
    channels: int,
    capacity: int,
    programs: list[npt.NDArray[np.int32]],
    scratch: list[npt.NDArray[np.int32]],
) -> Schedule:
    """Build a schedule from each rank's rows, of shape ``(nops, 8)``, and each rank's scratch slots."""

    def offsets(parts: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int64]:
        return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)

    return Schedule(
        name=name,
        kind=kind,
        nranks=nranks,
        root=root,
        pieces=pieces,
        in_place=in_place,
        channels=channels,
        capacity=capacity,
        ops=np.concatenate([np.empty((0, NCOLUMNS), np.int32), *programs]),
        offsets=offsets(programs),
        scratch=np.concatenate([np.empty(0, np.int32), *scratch]),
        scratch_offsets=offsets(scratch),
    )


def encode(schedule: Schedule) -> bytes:
    """Write the msgpack form.

    Raises
    ------
    UsageError
        If the schedule's tables do not fit together.
    """
    _require_well_formed(schedule)
    return msgspec.msgpack.encode(
        _Binary(
            **_common(schedule),
            offsets=_raw(schedule.offsets, "<i8"),
            ops=_raw(schedule.ops, "<i4"),
            scratch_offsets=_raw(schedule.scratch_offsets, "<i8"),
            scratch=_raw(schedule.scratch, "<i4"),
            digest=schedule.digest(),
        )
    )


def decode(data: bytes) -> Schedule:
    """Read the msgpack form.

    Raises
    ------
    UsageError
        If the data is not a schedule, of another version, has unknown keys, or is damaged.
    """
    try:
        _check_head(msgspec.msgpack.decode(data, type=_Head))
        file = msgspec.msgpack.decode(data, type=_Binary)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not a schedule file: {error}") from error
    if len(file.ops) % (4 * NCOLUMNS):
        raise UsageError(
            f"a schedule file's ops must come in rows of {4 * NCOLUMNS} bytes, got {len(file.ops)}"
        )
    schedule = Schedule(
        name=file.name,
        kind=_kind(file),
        nranks=file.ranks,
        root=file.root,
        pieces=file.pieces,
        in_place=file.in_place,
        channels=file.channels,
        capacity=file.capacity,
        ops=_array(file.ops, "<i4").reshape(-1, NCOLUMNS).astype(np.int32, copy=False),
        offsets=_array(file.offsets, "<i8").astype(np.int64, copy=False),
        scratch=_array(file.scratch, "<i4").astype(np.int32, copy=False),
        scratch_offsets=_array(file.scratch_offsets, "<i8").astype(np.int64, copy=False),
    )
    _require_well_formed(schedule)
    if schedule.digest() != file.digest:
        raise UsageError("the schedule file is damaged: its content does not match its digest")
    return schedule


def encode_json(schedule: Schedule) -> bytes:
    """Write the JSON form, one program per line.

    Raises
    ------
    UsageError
        If the schedule's tables do not fit together.
    """
    _require_well_formed(schedule)
    dump = msgspec.json.encode
    ranks = range(schedule.nranks)
    head = dump(_common(schedule))[1:-1]
    programs = b",\n  ".join(dump(schedule.program(rank).tolist()) for rank in ranks)
    scratch = b",\n  ".join(dump(schedule.scratch_slots(rank).tolist()) for rank in ranks)
    return b'{%b,\n "programs":[\n  %b],\n "scratch":[\n  %b]}\n' % (head, programs, scratch)


def decode_json(data: bytes) -> Schedule:
    """Read the JSON form.

    Raises
    ------
    UsageError
        If the data is not a schedule, of another version, has unknown keys, or numbers beyond 32 bits.
    """
    try:
        _check_head(msgspec.json.decode(data, type=_Head))
        file = msgspec.json.decode(data, type=_Json)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"not a schedule file: {error}") from error
    kind = _kind(file)
    if not len(file.programs) == len(file.scratch) == file.ranks:
        raise UsageError(
            f"a schedule of {file.ranks} ranks must list as many programs and scratches, "
            f"got {len(file.programs)} and {len(file.scratch)}"
        )
    try:
        programs = [np.array(rows, np.int32).reshape(-1, NCOLUMNS) for rows in file.programs]
        scratch = [np.array(slots, np.int32) for slots in file.scratch]
    except OverflowError as error:
        raise UsageError(f"a number in the schedule file is beyond 32 bits: {error}") from error
    return assemble(
        name=file.name,
        kind=kind,
        nranks=file.ranks,
        root=file.root,
        pieces=file.pieces,
        in_place=file.in_place,
        channels=file.channels,
        capacity=file.capacity,
        programs=programs,
        scratch=scratch,
    )


def _common(schedule: Schedule) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "name": schedule.name,
        "collective": schedule.kind.label,
        "ranks": schedule.nranks,
        "root": schedule.root,
        "pieces": schedule.pieces,
        "in_place": schedule.in_place,
        "channels": schedule.channels,
        "capacity": schedule.capacity,
    }


def _check_head(head: _Head) -> None:
    if head.format != _FORMAT:
        raise UsageError(f"not a schedule file: its format is {head.format!r}, expected {_FORMAT!r}")
    if head.format_version != FORMAT_VERSION:
        raise UsageError(
            f"the schedule file has format version {head.format_version}, this pycomm reads {FORMAT_VERSION}"
        )


def _kind(file: _Common) -> CollectiveKind:
    for key in ("ranks", "root", "pieces", "channels", "capacity"):
        value: int = getattr(file, key)
        if not _INT32[0] <= value <= _INT32[1] or (key == "ranks" and value < 1):
            raise UsageError(f"a schedule file's {key!r} cannot be {value}")
    for kind in CollectiveKind:
        if kind.label == file.collective:
            return kind
    raise UsageError(f"the schedule file names the unknown collective {file.collective!r}")


def _require_well_formed(schedule: Schedule) -> None:
    if problem := malformed(schedule):
        raise UsageError(f"the schedule's tables do not fit together: {problem}")


def _raw(array: npt.NDArray[np.int32] | npt.NDArray[np.int64], dtype: str) -> bytes:
    return np.ascontiguousarray(array, dtype=dtype).tobytes()


def _array(data: bytes, dtype: str) -> npt.NDArray[np.generic]:
    itemsize = np.dtype(dtype).itemsize
    if len(data) % itemsize:
        raise UsageError(f"a schedule file's table has {len(data)} bytes, not a multiple of {itemsize}")
    return np.frombuffer(data, dtype)
