"""What may stand in a topology file, key by key, and how each value is read.

A table of keys for every table of a file: what is not in it is refused. ``topologies/README.md`` explains the
schema to those who write files.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from fractions import Fraction
from functools import cache
from typing import Any

from pycomm.errors import TopologyError
from pycomm.topology.draft import latency_of, rate_of
from pycomm.topology.generators import GENERATORS, FabricOptions
from pycomm.topology.lines import Path
from pycomm.topology.model import NodeKind
from pycomm.topology.names import expand

__all__ = [
    "DOCUMENT",
    "GENERATE",
    "HOST",
    "LINK",
    "NODE",
    "OVERRIDE",
    "TEMPLATE",
    "Fault",
    "Spec",
    "parameters_of",
    "take",
]

VERSION = 1
"""Of the schema."""


class Fault(Exception):
    """What is wrong at a place of a file; the file's reader makes a TopologyError of it."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(message)
        self.path = path


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TopologyError(f"{value!r} is not a text; write it in quotes")
    return value


def _texts(value: Any) -> list[str]:
    return [_text(one) for one in value] if isinstance(value, list) else [_text(value)]


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TopologyError(f"{value!r} is neither true nor false")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
        raise TopologyError(f"{value!r} is not a count")
    return value


def _counts(value: Any) -> list[int]:
    if not isinstance(value, list):
        raise TopologyError(f"{value!r} is not a list of counts; write it like [4, 4, 8]")
    return [_count(one) for one in value]


def _one_or_list(one: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: [one(v) for v in value] if isinstance(value, list) else one(value)


def _single(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def one(value: Any) -> Any:
        if isinstance(value, list):
            raise TopologyError("this generator takes no list here; give one value")
        return read(value)

    return one


def _rate(value: Any) -> int:
    if not isinstance(value, str):
        raise TopologyError(f'{value!r} has no unit; write a bandwidth like "200 Gbit/s" or "25 GB/s"')
    return rate_of(value)


def _latency(value: Any) -> float:
    if not isinstance(value, str):
        raise TopologyError(f'{value!r} has no unit; write a latency like "1.5 us"')
    return latency_of(value)


def _kind(value: Any) -> NodeKind:
    try:
        return NodeKind(value)
    except ValueError:
        kinds = ", ".join(kind.value for kind in NodeKind)
        raise TopologyError(f"{value!r} is not a kind of vertex; the kinds are {kinds}") from None


def _names(value: Any) -> list[str]:
    return expand(_text(value))


def _scale(value: Any) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 10**6:
        raise TopologyError(f"{value!r} is not a factor more than 0; a link that is down has down = true")
    return Fraction(str(value))


def _ratio(value: Any) -> int | float | str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise TopologyError(f'{value!r} is not a ratio; write it as 1, 2.5 or "3:1"')
    return value


def _version(value: Any) -> int:
    if value != VERSION or isinstance(value, bool):
        raise TopologyError(
            f"{value!r} is not a version that this pycomm reads; it reads version = {VERSION}"
        )
    return VERSION


def _tables(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise TopologyError("this is a list of tables; write its name in double brackets")
    return value


def _table_of_tables(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise TopologyError("this is a table of templates; write [template.NAME]")
    return value


Spec = Mapping[str, Callable[[Any], Any]]
"""How the value of each key is read."""

TEMPLATE: Spec = {
    "source": _texts,
    "extends": _text,
    "hostname": _text,
    "node": _tables,
    "host": _tables,
    "generate": _tables,
    "link": _tables,
    "override": _tables,
}
DOCUMENT: Spec = {"version": _version, "name": _text, "template": _table_of_tables, **TEMPLATE}
NODE: Spec = {
    "name": _names,
    "kind": _kind,
    "host": _text,
    "vendor": _text,
    "model": _text,
    "multicast": _flag,
    "reduction": _flag,
}
HOST: Spec = {"name": _names, "template": _text}
LINK: Spec = {
    "from": _text,
    "to": _text,
    "bandwidth": _rate,
    "back": _rate,
    "both": _flag,
    "latency": _latency,
    "kind": _text,
    "cables": _count,
    "all_pairs": _flag,
}
OVERRIDE: Spec = {
    "node": _text,
    "from": _text,
    "to": _text,
    "both": _flag,
    "down": _flag,
    "bandwidth": _rate,
    "scale": _scale,
    "latency": _latency,
    "kind": _text,
    "cables": _count,
    "multicast": _flag,
    "reduction": _flag,
}
GENERATE: Spec = {"kind": _text, "prefix": _text}
"""What every generator has beside its parameters."""

_PARAMETERS: Spec = {
    **dict.fromkeys(
        (
            "count", "cables", "devices", "dimensions", "ends_per_leaf", "ends_per_switch", "global_links",
            "groups", "hosts_per_leaf", "leaves", "levels", "nics", "planes", "radix", "rails", "spines",
            "switches_per_group",
        ),
        _count,
    ),
    **dict.fromkeys(("core_rate", "global_rate", "local_rate", "nic_rate", "spine_rate"), _rate),
    **dict.fromkeys(("link_kind", "model", "nic_link_kind", "ports", "vendor"), _text),
    **dict.fromkeys(("mesh", "multicast", "one_way", "reduction"), _flag),
    **dict.fromkeys(("global_latency", "latency"), _latency),
    **dict.fromkeys(("core_oversubscription", "oversubscription"), _ratio),
    "host": _one_or_list(_text),
    "hosts": _one_or_list(_count),
    "rate": _one_or_list(_rate),
    "sides": _counts,
    "wrap": _one_or_list(_flag),
}  # fmt: skip
"""How the parameters of generators are read, by their names."""


@cache
def parameters_of(kind: str) -> tuple[Spec, tuple[str, ...]]:
    """How the parameters of a generator are read, and which of them are obligatory.

    Raises
    ------
    TopologyError
        There is no such generator.
    """
    if kind not in GENERATORS:
        raise TopologyError(f"there is no generator {kind!r}{suggestion(kind, sorted(GENERATORS))}")
    spec: dict[str, Callable[[Any], Any]] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(GENERATORS[kind]).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            spec.update((option, _PARAMETERS[option]) for option in FabricOptions.__annotations__)
        elif name != "name":
            several = any(word in str(parameter.annotation) for word in ("Sequence", "Hosts"))
            spec[name] = _PARAMETERS[name] if several else _single(_PARAMETERS[name])
            if parameter.default is inspect.Parameter.empty:
                required.append(name)
    return {**spec, **GENERATE}, tuple(required)


def suggestion(word: str, known: Sequence[str]) -> str:
    """End a sentence about an unknown word with what it may have been."""
    close = get_close_matches(word, known, 1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known are {', '.join(known[:20])}{' and more' if len(known) > 20 else ''}"


def take(table: Mapping[str, Any], path: Path, spec: Spec, required: Sequence[str] = ()) -> dict[str, Any]:
    """Read a table.

    Parameters
    ----------
    table
        As tomllib has it.
    path
        Where it is.
    spec
        The keys that it may have.
    required
        The keys that it must have.

    Raises
    ------
    Fault
        A key is unknown or missing, or a value is not what it should be.
    """
    values: dict[str, Any] = {}
    for key, value in table.items():
        read = spec.get(key)
        if read is None:
            raise Fault((*path, key), f"there is no such key{suggestion(key, list(spec))}")
        try:
            values[key] = read(value)
        except TopologyError as error:
            raise Fault((*path, key), str(error)) from None
    for key in required:
        if key not in values:
            raise Fault(path, f"{key!r} is missing; say what it is")
    return values
