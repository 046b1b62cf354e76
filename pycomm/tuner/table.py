"""What was measured: which planner to use for which sizes, kept in a file that people may edit.

::

    format = "pycomm-tuning"
    version = 1

    [[entry]]
    collective = "allreduce"
    ranks = 4
    hosts = [2, 2]              # ranks of each host, in order; left out: any
    network = "5c1d0a2b9f3e4d67" # digest of the network and the places of the ranks; left out: any
    from = "0 B"                # sizes, both included; counted as the bench and the tuner count them
    to = "64 KiB"               # left out: no end
    algorithm = "double_tree"
    pieces = 4                  # left out: the planner's own choice
    order = [0, 2, 1, 3]        # of the ranks, for rings; left out: as they are
    time = "420 us"             # what was measured; for people

Entries for the same collective, ranks, hosts and network must not overlap. Where several fit a call, the one
that says most about where it holds is taken: network before hosts. A file that cannot be read as it stands is
an error with its line: a table that is half used would make ranks plan differently.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from pycomm.collectives.spec import equal_form
from pycomm.errors import UsageError
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.topology.lines import line_of
from pycomm.types import CollectiveKind
from pycomm.units import format_exact_time, format_size, parse_size, parse_time

__all__ = ["Entry", "Key", "Table", "key_of", "load_table", "merged", "read_table", "write_table"]

FORMAT: Final = "pycomm-tuning"
VERSION: Final = 1
OWN: Final = "own"
"""Name of the algorithm that is the backend's own collective."""
NO_END: Final = 2**63 - 1
"""Upper end of a range of sizes that has none."""
MAX_FILE_BYTES: Final = 16 * 2**20

_HEAD = """\
# Measured by `pycomm tune`, or written by hand; used where PYCOMM_TUNING names this file.
# docs/tuner.md says what the keys mean. Entries of one collective, ranks, hosts and network must not overlap.
"""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an entry holds.

    Parameters
    ----------
    ranks
        Size of the group.
    hosts
        Ranks of each host in order of their numbers; ``()`` in an entry: any.
    network
        First 16 hexadecimal digits of :func:`key_of`'s digest; ``""`` in an entry: any.
    """

    ranks: int
    hosts: tuple[int, ...] = ()
    network: str = ""

    def admits(self, other: Key) -> bool:
        """Whether an entry of this key holds for a group of the other key."""
        return (
            self.ranks == other.ranks
            and self.hosts in ((), other.hosts)
            and self.network in ("", other.network)
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: the planner for a range of sizes.

    Parameters
    ----------
    key, kind
        Where it holds, and for which collective (in its equal form).
    low, high
        Sizes in bytes, both included.
    algorithm, pieces, order
        The planner, and what it is asked for; ``"own"`` is the backend's own collective.
    seconds
        Measured time, 0 when none is given. Not used.
    """

    key: Key
    kind: CollectiveKind
    low: int
    high: int
    algorithm: str
    pieces: int = 0
    order: tuple[int, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Table:
    """Entries that do not contradict one another."""

    entries: tuple[Entry, ...] = ()

    def find(self, key: Key, kind: CollectiveKind, nbytes: int) -> Entry | None:
        """Look up the entry for a call: the one that says most about where it holds."""
        fitting = [
            entry
            for entry in self.entries
            if entry.kind is kind and entry.low <= nbytes <= entry.high and entry.key.admits(key)
        ]
        return max(fitting, key=lambda entry: (entry.key.network, entry.key.hosts), default=None)


def key_of(request: PlanRequest) -> Key:
    """Say where a request's entry would hold; the places of the ranks are part of the network's digest."""
    hosts = request.hosts or (0,) * request.nranks
    shape = tuple(hosts.count(host) for host in dict.fromkeys(hosts))
    network = ""
    if request.topology is not None:
        devices = request.devices or request.topology.devices
        text = repr(devices).encode()
        network = hashlib.sha256(request.topology.digest() + text).hexdigest()[:16]
    return Key(request.nranks, shape, network)


class _Fault(Exception):
    """What is wrong at a key of an entry."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


def load_table(path: str | Path) -> Table:
    """Read a file; see :func:`read_table`."""
    file = Path(path)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"{path}: the file is larger than {MAX_FILE_BYTES} bytes, and no tuning table")
        text = file.read_bytes().decode()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; name a file that `pycomm tune` wrote") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: this is not a text file; tuning tables are TOML in UTF-8") from None
    return read_table(text, str(path))


@lru_cache(maxsize=8)
def read_table(text: str, name: str = "tuning table") -> Table:
    """Read the text of a table.

    Raises
    ------
    UsageError
        The text is no valid table; the message names the line and the key.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"line (\d+)", str(error))
        line = int(where[1]) if where else text.count("\n") + 1
        raise UsageError(f"{name}:{line}: this is no valid TOML: {error}") from None
    try:
        return _table(document)
    except _Fault as fault:
        key = next((str(part) for part in reversed(fault.path) if isinstance(part, str)), "")
        raise UsageError(f"{name}:{line_of(text, fault.path)}: {key}: {fault}") from None


def _table(document: dict[str, Any]) -> Table:
    for key in document:
        if key not in ("format", "version", "entry"):
            raise _Fault((key,), "there is no such key; a table has format, version and entries")
    if document.get("format") != FORMAT:
        raise _Fault(("format",), f'a tuning table begins with format = "{FORMAT}"')
    if document.get("version") != VERSION or isinstance(document["version"], bool):
        raise _Fault(("version",), f"only version {VERSION} can be read; measure again with `pycomm tune`")
    rows = document.get("entry", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _Fault(("entry",), "write entries as [[entry]]")
    entries = [_entry(row, ("entry", number)) for number, row in enumerate(rows)]
    for number, entry in enumerate(entries):
        for earlier, other in enumerate(entries[:number]):
            if _overlap(entry, other):
                raise _Fault(
                    ("entry", number, "from"),
                    f"this entry overlaps entry {earlier + 1} of the file: both serve "
                    f"{format_size(max(entry.low, other.low))}; change the sizes of one",
                )
    return Table(tuple(entries))


def _overlap(a: Entry, b: Entry) -> bool:
    return (a.key, a.kind) == (b.key, b.kind) and a.low <= b.high and b.low <= a.high


def _entry(row: dict[str, Any], path: tuple[str | int, ...]) -> Entry:
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key not in _KEYS:
            raise _Fault((*path, key), f"there is no such key; an entry has {', '.join(_KEYS)}")
        try:
            found[key] = _KEYS[key](value)
        except UsageError as error:
            raise _Fault((*path, key), str(error)) from None
    for key in ("collective", "ranks", "algorithm"):
        if key not in found:
            raise _Fault(path, f"the entry lacks {key}")
    ranks, order, hosts = found["ranks"], found.get("order", ()), found.get("hosts", ())
    if hosts and sum(hosts) != ranks:
        raise _Fault((*path, "hosts"), f"the hosts have {sum(hosts)} ranks together, not {ranks}")
    if order and sorted(order) != list(range(ranks)):
        raise _Fault((*path, "order"), f"the order must name each of the ranks 0 to {ranks - 1} once")
    low, high = found.get("from", 0), found.get("to", NO_END)
    if low > high:
        raise _Fault((*path, "from"), f"{format_size(low)} is more than {format_size(high)}, where it ends")
    return Entry(
        Key(ranks, hosts, found.get("network", "")),
        found["collective"],
        low,
        high,
        found["algorithm"],
        found.get("pieces", 0),
        order,
        found.get("time", 0.0),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{value!r} is not a text; write it in quotes")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise UsageError(f"{value!r} is not a count of at least 1")
    return value


def _counts(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise UsageError(f"{value!r} is not a list; write it like [4, 4]")
    return tuple(_count(one) for one in value)


def _ranks(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list) or any(isinstance(one, bool) or not isinstance(one, int) for one in value):
        raise UsageError(f"{value!r} is not a list of ranks; write it like [0, 2, 1, 3]")
    return tuple(value)


def _kind(value: Any) -> CollectiveKind:
    labels = {
        kind.label: kind
        for kind in CollectiveKind
        if kind is equal_form(kind) and kind not in (CollectiveKind.SEND, CollectiveKind.RECV)
    }
    if _text(value) not in labels:
        raise UsageError(f"there is no collective {value!r}; choose one of {', '.join(labels)}")
    return labels[value]


def _algorithm(value: Any) -> str:
    known = (OWN, *registry.names())
    if _text(value) not in known:
        raise UsageError(f"there is no algorithm {value!r}; there are {', '.join(known)}")
    return str(value)


def _network(value: Any) -> str:
    if re.fullmatch(r"[0-9a-f]{16}", _text(value)) is None:
        raise UsageError(f"{value!r} is no digest of 16 hexadecimal digits, as `pycomm tune` writes them")
    return str(value)


_KEYS: Final[dict[str, Callable[[Any], Any]]] = {
    "collective": _kind,
    "ranks": _count,
    "hosts": _counts,
    "network": _network,
    "from": lambda value: parse_size(_text(value)),
    "to": lambda value: parse_size(_text(value)),
    "algorithm": _algorithm,
    "pieces": _count,
    "order": _ranks,
    "time": lambda value: parse_time(_text(value)),
}


def write_table(table: Table) -> str:
    """Print a table; reading it gives the same again."""
    parts = [f'{_HEAD}format = "{FORMAT}"\nversion = {VERSION}\n']
    for entry in sorted(table.entries, key=lambda e: (e.key, e.kind.label, e.low)):
        lines = ["[[entry]]", f'collective = "{entry.kind.label}"', f"ranks = {entry.key.ranks}"]
        if entry.key.hosts:
            lines.append(f"hosts = {list(entry.key.hosts)}")
        if entry.key.network:
            lines.append(f'network = "{entry.key.network}"')
        lines.append(f'from = "{format_size(entry.low)}"')
        if entry.high != NO_END:
            lines.append(f'to = "{format_size(entry.high)}"')
        lines.append(f'algorithm = "{entry.algorithm}"')
        if entry.pieces:
            lines.append(f"pieces = {entry.pieces}")
        if entry.order:
            lines.append(f"order = {list(entry.order)}")
        if entry.seconds:
            lines.append(f'time = "{format_exact_time(entry.seconds)}"')
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def merged(tables: Iterable[Table]) -> Table:
    """Put tables together; where two serve the same sizes, the later one does, and the earlier is cut."""
    kept: list[Entry] = []
    for table in tables:
        for new in table.entries:
            kept = [part for old in kept for part in _without(old, new)]
        kept += table.entries
    return Table(tuple(sorted(kept, key=lambda e: (e.key, e.kind.label, e.low))))


def _without(old: Entry, new: Entry) -> list[Entry]:
    """Cut from an entry the sizes that another one serves."""
    if not _overlap(old, new):
        return [old]
    parts = []
    if old.low < new.low:
        parts.append(replace(old, high=new.low - 1))
    if new.high < old.high:
        parts.append(replace(old, low=new.high + 1))
    return parts
