"""Names of vertices as files write them: ranges, lists and wildcards.

A text holds one name or several, with white space between them. ``gpu[0-7]`` is eight names,
``gpu[0-2,7]`` four, ``node[000-127]`` keeps the zeros, ``node[0-1]/gpu[0-7]`` is sixteen, the last range
running fastest. ``*`` stands for any characters, in texts that refer to vertices which are there already.
A backslash makes the next character a plain one, so that every name can be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product
from math import prod

from pycomm.errors import TopologyError

__all__ = [
    "MAX_NAMES",
    "counted_up",
    "expand",
    "fold",
    "has_wildcard",
    "is_plain",
    "matches",
    "numbered",
    "words",
]

MAX_NAMES = 2_000_000
"""More vertices than this are a mistake in a range."""

_SPECIAL = re.compile(r"[\\\[\]*\s]")
_TOKEN = re.compile(r"\\(.)|\[([^\[\]\s]*)\]|(\*)|([^\\\[\]*\s]+)|(.)", re.DOTALL)
_WORD = re.compile(r"(?:\\.|[^\s\\])+|\\", re.DOTALL)
_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_PARTS = re.compile(r"((?<![0-9])(?:0|[1-9][0-9]{0,17})(?![0-9]))")


def is_plain(text: str) -> bool:
    """Whether a text is one name as it stands."""
    return bool(text) and not _SPECIAL.search(text)


def words(text: str) -> list[str]:
    """Split at white space that no backslash precedes."""
    return _WORD.findall(text)


def has_wildcard(word: str) -> bool:
    """Whether a word has a ``*`` that no backslash precedes."""
    return "*" in word and any(match[3] for match in _TOKEN.finditer(word))


def _numbers(inside: str, word: str) -> list[tuple[int, int, int]]:
    """First, last and width of each run in a pair of brackets."""
    runs = []
    for part in inside.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise TopologyError(
                f"{word!r}: [{inside}] is no range; write [0-7] or [0,2,5-7], or \\[ for a bracket in a name"
            )
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise TopologyError(f"{word!r}: the range {part} runs backwards; write the smaller number first")
        runs.append((first, last, len(match[1]) if match[1].startswith("0") else 0))
    return runs


def _parts(word: str) -> list[str | list[tuple[int, int, int]]]:
    parts: list[str | list[tuple[int, int, int]]] = []
    for match in _TOKEN.finditer(word):
        escaped, inside, star, plain, stray = match.groups()
        if star:
            raise TopologyError(f"{word!r}: a new name cannot have a *; write \\* for a star in a name")
        if stray:
            raise TopologyError(f"{word!r} has a stray {stray!r}; write \\{stray} for one in a name")
        parts.append(_numbers(inside, word) if inside is not None else escaped or plain)
    return parts


def expand(text: str) -> list[str]:
    """List the names that a text holds.

    Raises
    ------
    TopologyError
        There is no name, a range is malformed, or there are more than ``MAX_NAMES``.

    Examples
    --------
    >>> expand("gpu[0-2,7] nic0")
    ['gpu0', 'gpu1', 'gpu2', 'gpu7', 'nic0']
    """
    if is_plain(text):
        return [text]
    names: list[str] = []
    for word in words(text):
        parts = _parts(word)
        sizes = [sum(b - a + 1 for a, b, _ in part) for part in parts if not isinstance(part, str)]
        if len(names) + prod(sizes) > MAX_NAMES:
            raise TopologyError(f"{word!r} makes more than {MAX_NAMES} names; check the range")
        choices = (
            [part] if isinstance(part, str) else [f"{i:0{w}d}" for a, b, w in part for i in range(a, b + 1)]
            for part in parts
        )
        names.extend(map("".join, product(*choices)))
    if not names:
        raise TopologyError("a name is empty; give every vertex a name")
    return names


def matches(word: str, names: Iterable[str]) -> list[str]:
    """List those of the names that a word with wildcards fits."""
    pieces = []
    for match in _TOKEN.finditer(word):
        escaped, inside, star, plain, stray = match.groups()
        if stray:
            raise TopologyError(f"{word!r} has a stray {stray!r}; write \\{stray} for one in a name")
        if star:
            pieces.append(".*")
        elif inside is not None:
            alternatives: list[str] = []
            for first, last, width in _numbers(inside, word):
                if last - first > MAX_NAMES:
                    raise TopologyError(f"{word!r} makes more than {MAX_NAMES} names; check the range")
                alternatives.extend(f"{i:0{width}d}" for i in range(first, last + 1))
            pieces.append(f"(?:{'|'.join(alternatives)})")
        else:
            pieces.append(re.escape(escaped or plain))
    pattern = re.compile("".join(pieces), re.DOTALL)
    return [name for name in names if pattern.fullmatch(name)]


def _escape(text: str) -> str:
    return _SPECIAL.sub(lambda match: "\\" + match[0], text)


def numbered(name: str) -> tuple[str, ...]:
    """Cut a name into text and numbers; those with a leading zero count as text."""
    return tuple(_PARTS.split(name))


def counted_up(before: tuple[str, ...], after: tuple[str, ...]) -> int | None:
    """Tell which part is one more than in the name before; ``None`` unless all others stay as they are.

    Examples
    --------
    >>> counted_up(numbered("host0/nic3"), numbered("host1/nic3"))
    1
    """
    if len(before) != len(after):
        return None
    unlike = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if len(unlike) != 1 or unlike[0] % 2 == 0:
        return None
    return unlike[0] if int(before[unlike[0]]) + 1 == int(after[unlike[0]]) else None


def fold(names: Iterable[str]) -> list[str]:
    """Write names as few words; ``expand`` of the words, joined by spaces, gives the names back in order.

    Examples
    --------
    >>> fold(["gpu0", "gpu1", "gpu2", "nic0"])
    ['gpu[0-2]', 'nic0']
    """
    runs: list[tuple[tuple[str, ...], int, tuple[str, ...]]] = []  # first, which part counts or 0, last
    for name in names:
        parts = numbered(name)
        if runs:
            first, part, last = runs[-1]
            now = counted_up(last, parts)
            if now is not None and part in (0, now):
                runs[-1] = (first, now, parts)
                continue
        runs.append((parts, 0, parts))
    return [
        "".join(
            f"[{a}-{b}]" if part and i == part else _escape(a)
            for i, (a, b) in enumerate(zip(first, last, strict=True))
        )
        for first, part, last in runs
    ]
