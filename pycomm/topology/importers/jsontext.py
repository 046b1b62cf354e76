"""JSON read strictly, with the path of the field in every complaint."""

from __future__ import annotations

import json
import re
from typing import Any

from pycomm.topology.importers.source import Source

__all__ = ["array", "integer", "parse_json", "record", "string"]

_COMMENT = re.compile(r'"(?:\\.|[^"\\])*+(?:"|\Z)|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return result


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def parse_json(source: Source, *, comments: bool = False) -> Any:
    """Parse a document; with ``comments``, ``//`` and ``/* */`` are passed over.

    Raises
    ------
    TopologyError
        It is malformed, cut short or too deep, or has a key twice.
    """
    text = source.text
    if comments:
        text = _COMMENT.sub(lambda m: m[0] if m[0][0] == '"' else "\n" * m[0].count("\n"), text)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_constant)
    except json.JSONDecodeError as error:
        source.fail(f"this is not whole JSON: {error.msg}; is the file cut short?", error.lineno)
    except ValueError as error:
        source.fail(str(error)[:200])
    except RecursionError:
        source.fail("objects are nested too deep; no topology file is")


def record(source: Source, value: Any, field: str) -> dict[str, Any]:
    """Take an object."""
    if not isinstance(value, dict):
        source.fail(f"an object in braces is wanted here, not {_kind(value)}", field=field)
    return value


def array(source: Source, value: Any, field: str) -> list[Any]:
    """Take an array."""
    if not isinstance(value, list):
        source.fail(f"an array in brackets is wanted here, not {_kind(value)}", field=field)
    return value


def string(source: Source, value: Any, field: str) -> str:
    """Take a non-empty string, or a whole number as its digits."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        source.fail(f"a text is wanted here, not {_kind(value)}", field=field)
    return value.strip()


def integer(source: Source, value: Any, field: str, most: int = 2**31) -> int:
    """Take a whole number from 0, as a number or as digits in quotes."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > most:
        source.fail(f"a whole number from 0 to {most} is wanted here, not {_kind(value)}", field=field)
    return int(text)


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
