"""Schedules in the formats of others: one function per format, chosen by a file's suffix.

``.txt``, ``.msgpack`` and ``.json`` are pycomm's own; these and MSCCL's ``.xml`` can be read. The rest is for
other programs and eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Final

from pycomm.errors import UsageError
from pycomm.export.dot import dot
from pycomm.export.msccl import msccl_xml
from pycomm.export.msccl_reader import read_msccl_xml
from pycomm.export.mscclpp import mscclpp_json
from pycomm.export.picture import picture
from pycomm.export.trace import chrome_trace
from pycomm.schedule import Schedule
from pycomm.schedule.codec import decode, decode_json, encode, encode_json
from pycomm.schedule.text import format_schedule, parse_schedule

__all__ = [
    "EXPORTERS",
    "READERS",
    "chrome_trace",
    "dot",
    "export",
    "msccl_xml",
    "mscclpp_json",
    "picture",
    "read",
    "read_msccl_xml",
]

Exporter = Callable[[Schedule], bytes]
Reader = Callable[[bytes], Schedule]


def _text(schedule: Schedule) -> bytes:
    return format_schedule(schedule).encode()


def _parse(data: bytes) -> Schedule:
    try:
        return parse_schedule(data.decode())
    except UnicodeDecodeError as error:
        raise UsageError(f"not a text file: {error}") from error


def _picture(suffix: str) -> Exporter:
    return lambda schedule: picture(schedule, suffix)


EXPORTERS: Final[Mapping[str, Exporter]] = {
    ".txt": _text,
    ".msgpack": encode,
    ".json": encode_json,
    ".xml": msccl_xml,
    ".mscclpp.json": mscclpp_json,
    ".dot": dot,
    ".trace.json": chrome_trace,
    ".svg": _picture(".svg"),
    ".png": _picture(".png"),
    ".pdf": _picture(".pdf"),
}
"""What can be written, by suffix."""

READERS: Final[Mapping[str, Reader]] = {
    ".txt": _parse,
    ".msgpack": decode,
    ".json": decode_json,
    ".xml": read_msccl_xml,
}
"""What can be read, by suffix."""


def _suffix(name: str, known: Mapping[str, object], verb: str) -> str:
    path = PurePath(name)
    for suffix in ("".join(path.suffixes[-2:]), path.suffix):
        if suffix in known:
            return suffix
    raise UsageError(f"cannot {verb} {name!r} by its suffix; known are {', '.join(known)}")


def export(schedule: Schedule, name: str) -> bytes:
    """Write the schedule in the format that the suffix of the file's name asks for.

    Raises
    ------
    UsageError
        If the suffix is unknown, or the format cannot say this schedule.
    """
    return EXPORTERS[_suffix(name, EXPORTERS, "write")](schedule)


def read(data: bytes, name: str) -> Schedule:
    """Read a schedule in the format that the suffix of the file's name says it has.

    Raises
    ------
    UsageError
        If the suffix is unknown or the data is not a schedule.
    """
    return READERS[_suffix(name, READERS, "read")](data)
