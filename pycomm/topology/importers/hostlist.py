"""Slurm's short form for many names: ``tux[0-3,12,018-020]``, several brackets in one name, commas between.

References
----------
SchedMD, Slurm documentation, ``topology.conf(5)``: switch and node names are hostlist expressions.
"""

from __future__ import annotations

import itertools
import math
import re

from pycomm.topology.importers.source import Source

__all__ = ["expand"]

MAX_NAMES = 1_000_000

_RANGE = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")


def expand(source: Source, text: str, line: int) -> list[str]:
    """Expand an expression into its names, in order.

    Raises
    ------
    TopologyError
        A bracket is not closed or nested, a range is not one, or there are too many names.
    """
    names: list[str] = []
    for item in _split(source, text, line):
        pieces = re.split(r"\[([^\[\]]*)\]", item)
        if any("[" in piece or "]" in piece for piece in pieces[::2]):
            source.fail(f"the brackets in {item[:60]!r} are nested or do not match", line)
        choices = [
            _numbers(source, piece, line) if place % 2 else [piece] for place, piece in enumerate(pieces)
        ]
        if len(names) + math.prod(len(choice) for choice in choices) > MAX_NAMES:
            source.fail(f"{item[:60]!r} stands for more than {MAX_NAMES} names; that is too many", line)
        names.extend("".join(parts) for parts in itertools.product(*choices))
    return names


def _split(source: Source, text: str, line: int) -> list[str]:
    """Cut at the commas outside brackets."""
    items, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
        elif letter == "," and depth == 0:
            items.append(text[begin:place].strip())
            begin = place + 1
    items.append(text[begin:].strip())
    if not all(items):
        source.fail(f"{text[:60]!r} has an empty name; is there a comma too many?", line)
    return items


def _numbers(source: Source, text: str, line: int) -> list[str]:
    numbers: list[str] = []
    for part in text.split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            source.fail(f"[{text[:60]}] is not a list of numbers and ranges such as [001-016,19]", line)
        first, last = match[1], match[2] or match[1]
        if int(last) < int(first):
            source.fail(f"the range {part.strip()} runs backwards", line)
        if int(last) - int(first) >= MAX_NAMES - len(numbers):
            source.fail(f"[{text[:60]}] stands for more than {MAX_NAMES} names; that is too many", line)
        numbers.extend(f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1))
    return numbers
