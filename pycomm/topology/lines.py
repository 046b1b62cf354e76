"""Where in a TOML text a key stands; :mod:`tomllib` tells lines of bad syntax only, not of what we refuse."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["Path", "line_of"]

Path = tuple[str | int, ...]
"""Keys and indices that lead to a value, as in ``("link", 3, "bandwidth")``."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|" + r'"(?:[^"\\\n]|\\.)*"|' + r"'[^'\n]*'", re.DOTALL
)
_SCALAR = re.compile(r"[^,\]}\n#]*")


class _Scan:
    """One pass over a text that tomllib has read without complaint."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        self.at = match.end() if match else self.at + 1
        return match[0] if match else ""

    def peek(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def key(self) -> list[str]:
        """Read a dotted key."""
        parts = []
        while True:
            self.skip(_SPACE)
            quoted = self.peek('"') or self.peek("'")
            parts.append(self.skip(_STRING)[1:-1] if quoted else self.skip(_BARE))
            self.skip(_SPACE)
            if not self.peek("."):
                return parts
            self.at += 1

    def pair(self, path: Path) -> Iterator[tuple[Path, int]]:
        """Read ``key = value``."""
        start = self.at
        path += tuple(self.key())
        self.at += 1  # the equals sign
        yield path, start
        self.skip(_SPACE)
        yield from self.value(path)

    def value(self, path: Path) -> Iterator[tuple[Path, int]]:
        """Read a value; yield the places of what is in it."""
        if self.peek("{"):
            self.at += 1
            while not self.peek("}") and self.at < len(self.text):
                self.skip(_SPACE)
                yield from self.pair(path)
                self.skip(_SPACE)
                if self.peek(","):
                    self.at += 1
            self.at += 1
        elif self.peek("["):
            self.at += 1
            number = 0
            self.skip(_BLANK)
            while not self.peek("]") and self.at < len(self.text):
                yield (*path, number), self.at
                yield from self.value((*path, number))
                number += 1
                self.skip(_BLANK)
                if self.peek(","):
                    self.at += 1
                    self.skip(_BLANK)
            self.at += 1
        else:
            self.skip(_STRING if self.peek('"') or self.peek("'") else _SCALAR)

    def places(self) -> Iterator[tuple[Path, int]]:
        """Yield the path and the position of every table, key and element, in the order of the text."""
        table: Path = ()
        counts: dict[Path, int] = {}
        self.skip(_BLANK)
        while self.at < len(self.text):
            start = self.at
            if self.peek("["):
                double = self.peek("[[")
                self.at += 1 + double
                table = ()
                parts = self.key()
                for i, part in enumerate(parts):
                    table += (part,)
                    if double and i == len(parts) - 1:
                        counts[table] = counts.get(table, -1) + 1
                    if table in counts:
                        table += (counts[table],)
                self.at += 1 + double
                yield table, start
            else:
                yield from self.pair(table)
            self.skip(_BLANK)


def line_of(text: str, path: Path) -> int:
    r"""Find the line, counted from 1, of a value in a valid TOML text.

    Parameters
    ----------
    text
        What tomllib has read.
    path
        Keys and indices that lead to the value. Where the text has no such value, the nearest that is around
        it counts.

    Examples
    --------
    >>> line_of("a = 1\n[[b]]\nc = 2\n[[b]]\nc = 3", ("b", 1, "c"))
    5
    """
    if not path:
        return 1
    best, position = 0, 0
    for place, at in _Scan(text).places():
        if place[: len(path)] == path:  # the value itself, or the first table of a list
            position = at
            break
        if len(place) > best and place == path[: len(place)]:
            best, position = len(place), at
    return text.count("\n", 0, position) + 1
