"""Large TOML files read fast, as long as they are plain.

:mod:`tomllib` takes a minute of a slow core for a few million keys. A file of that size was written by a
program, one entry a line, and such lines need no parser. What is read here is a part of TOML: one table
header, key, or array element on a line, basic strings without backslashes, whole numbers, ``true`` and
``false``, inline tables of these. At the first line that is anything else, or that tomllib might refuse, the
answer is ``None`` and the file is tomllib's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

__all__ = ["read_plain"]

_VALUE = r'(?:"([^"\\\x00-\x08\x0a-\x1f\x7f]*)"|(true|false)|(0|[1-9][0-9]{0,17}))'
_KEY = r"([A-Za-z0-9_-]+)"
_PAIR = re.compile(rf"[ \t]*{_KEY}[ \t]*=[ \t]*{_VALUE}[ \t]*")
_LINE = re.compile(rf"{_KEY}[ \t]*=[ \t]*{_VALUE}[ \t]*")
_OPEN = re.compile(rf"{_KEY}[ \t]*=[ \t]*\[[ \t]*")
_HEADER = re.compile(rf"\[\[[ \t]*{_KEY}[ \t]*\]\][ \t]*")
_ELEMENT = re.compile(rf"[ \t]*{_VALUE}[ \t]*(?P<comma>,?)[ \t]*")
_TABLE = re.compile(r"[ \t]*\{(.*)\}[ \t]*(?P<comma>,?)[ \t]*")
_CLOSE = re.compile(r"[ \t]*\][ \t]*")
_BLANK = re.compile(r"[ \t]*(?:#[\x09\x20-\x7e]*)?")


def _value(text: str | None, flag: str | None, number: str | None) -> str | bool | int:
    if text is not None:
        return text
    return int(number) if number is not None else flag == "true"


def _inline(body: str) -> dict[str, Any] | None:
    """Read the inside of an inline table."""
    table: dict[str, Any] = {}
    at, end = 0, len(body)
    while at < end:
        match = _PAIR.match(body, at)
        if match is None or match[1] in table:
            return None
        table[match[1]] = _value(*match.group(2, 3, 4))
        at = match.end()
        if at < end:
            if body[at] != "," or at + 1 == end:
                return None
            at += 1
    return table


def _array(lines: Iterator[str]) -> list[Any] | None:
    """Read the elements of an array, one on each line, and the line that closes it."""
    array: list[Any] = []
    complete = True  # there is a comma after the last element
    for line in lines:
        value: Any
        if match := _TABLE.fullmatch(line):
            value = _inline(match[1])
        elif match := _ELEMENT.fullmatch(line):
            value = _value(*match.group(1, 2, 3))
        elif _BLANK.fullmatch(line):
            continue
        else:
            return array if _CLOSE.fullmatch(line) else None
        if value is None or not complete:
            return None
        array.append(value)
        complete = bool(match["comma"])
    return None


def read_plain(text: str) -> dict[str, Any] | None:
    r"""Read a plain TOML text; ``None`` when it has anything that is not plain.

    Parameters
    ----------
    text
        Any text.

    Returns
    -------
    dict or None
        What ``tomllib.loads`` returns.

    Examples
    --------
    >>> read_plain('a = 1\n[[b]]\nc = "x"')
    {'a': 1, 'b': [{'c': 'x'}]}
    """
    document: dict[str, Any] = {}
    table = document
    grown: dict[str, list[Any]] = {}  # arrays of tables, one more element with each header
    lines = iter(text.replace("\r\n", "\n").split("\n"))
    for line in lines:
        value: Any
        if match := _LINE.fullmatch(line):
            value = _value(*match.group(2, 3, 4))
        elif match := _HEADER.fullmatch(line):
            if match[1] not in grown and match[1] in document:
                return None
            table = {}
            document[match[1]] = grown.setdefault(match[1], [])
            grown[match[1]].append(table)
            continue
        elif match := _OPEN.fullmatch(line):
            value = _array(lines)
        elif _BLANK.fullmatch(line):
            continue
        else:
            return None
        if value is None or match[1] in table:
            return None
        table[match[1]] = value
    return document
