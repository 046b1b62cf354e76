"""The part of YAML that topology files use, read strictly: mappings, lists and texts, each with its line.

Block and flow style, quoted and plain texts, comments, one document. Every plain value stays a text: what
is a number is for the reader of the field to say. Anchors, aliases, tags, directives, several documents and
texts of several lines are refused, and with them every surprise of YAML.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from pycomm.topology.importers.source import Source

__all__ = ["Mapping", "Sequence", "parse_yaml"]

MAX_DEPTH = 64

_KEY = re.compile(
    r"""("(?:\\.|[^"\\])*"|'(?:''|[^'])*'|(?:[^\s#"'\[\]{},&*!|>%@`-]|-(?=[^\s#]))[^#]*?)\s?:(?:\s+|$)"""
)
_FLOW = re.compile(
    r"""\s*(?:([\[\]{},:])|("(?:\\.|[^"\\])*"|'(?:''|[^'])*')|([^\s\[\]{},:"'&*!|>%@`][^\[\]{},:]*))"""
)


_FLOW_START = re.compile(r"""(?:-\s++)*+(?:[^\s\[{"'][^\[{"']*?:\s+)?[\[{]""")
"""The way to the bracket that begins a value in flow style."""


class Mapping(dict[str, Any]):
    """A mapping that knows its line, and the line of each key."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: dict[str, int] = {}


class Sequence(list[Any]):
    """A list that knows its line, and the line of each item."""

    def __init__(self, line: int) -> None:
        super().__init__()
        self.line = line
        self.lines: list[int] = []


class _Line(NamedTuple):
    indent: int
    text: str
    number: int


def parse_yaml(source: Source) -> Any:
    """Parse a document into mappings, lists, texts and ``None``.

    Raises
    ------
    TopologyError
        It is not whole, has a key twice, or uses what is refused.
    """
    lines = _lines(source)
    if not lines:
        return None
    value, rest = _block(source, lines, 0, lines[0].indent, 0)
    if rest < len(lines):
        source.fail("the indentation does not fit what is above", lines[rest].number)
    return value


def _lines(source: Source) -> list[_Line]:
    """Take out comments and blank lines, and join flow collections of several lines."""
    result: list[_Line] = []
    pieces: list[str] = []
    depth = 0
    for number, raw in enumerate(source.text.splitlines(), 1):
        text = _strip_comment(raw)
        if not text.strip() or (text.strip() == "---" and not result) or text.strip() == "...":
            continue
        if text.strip() == "---" or text.startswith(("--- ", "%")):
            source.fail("directives and several documents in one file are not read", number)
        body = text.lstrip(" ")
        if body[0] == "\t":
            source.fail("the line is indented with a tab; YAML wants spaces", number)
        if depth > 0:
            pieces.append(body.strip())
            depth += _opened(body)
        else:
            result.append(_Line(len(text) - len(body), body.rstrip(), number))
            start = _FLOW_START.match(body)
            depth = _opened(body[start.end() - 1 :]) if start else 0
            pieces = [body.rstrip()]
        if depth <= 0 and len(pieces) > 1:
            result[-1] = result[-1]._replace(text=" ".join(pieces))
            pieces = []
    if depth > 0:
        source.fail("a bracket is never closed; is the file cut short?", result[-1].number)
    return result


def _strip_comment(raw: str) -> str:
    """Cut a comment off: ``#`` at the start or after white space, outside quotes."""
    if "#" not in raw:
        return raw
    quote = ""
    for place, letter in enumerate(raw):
        before = raw[place - 1] if place else " "
        if quote:
            if letter == quote and not (quote == '"' and before == "\\"):
                quote = ""
        elif letter in "\"'" and (before.isspace() or before in "[{,:-"):
            quote = letter
        elif letter == "#" and before.isspace():
            return raw[:place]
    return raw


def _opened(text: str) -> int:
    """How many more brackets a text opens than it closes, outside quotes."""
    depth, quote = 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
    return depth


def _block(source: Source, lines: list[_Line], at: int, indent: int, depth: int) -> tuple[Any, int]:
    """Parse what stands at one indentation, from line ``at``; returns the value and the next line."""
    if depth > MAX_DEPTH:
        source.fail(f"lists and mappings are nested more than {MAX_DEPTH} deep", lines[at].number)
    if lines[at].text == "-" or lines[at].text.startswith("- "):
        return _sequence(source, lines, at, indent, depth)
    if _KEY.match(lines[at].text):
        return _mapping(source, lines, at, indent, depth)
    return _scalar(source, lines[at].text, lines[at].number, depth), at + 1


def _sequence(source: Source, lines: list[_Line], at: int, indent: int, depth: int) -> tuple[Sequence, int]:
    result = Sequence(lines[at].number)
    while at < len(lines) and lines[at].indent == indent and re.match(r"-(?:\s|$)", lines[at].text):
        line = lines[at]
        rest = line.text[1:].lstrip(" ")
        value: Any = None
        if rest:
            # What follows the dash is a block of its own, indented by its place in the line.
            lines[at] = _Line(indent + len(line.text) - len(rest), rest, line.number)
            value, at = _block(source, lines, at, lines[at].indent, depth + 1)
        else:
            at += 1
            if at < len(lines) and lines[at].indent > indent:
                value, at = _block(source, lines, at, lines[at].indent, depth + 1)
        result.append(value)
        result.lines.append(line.number)
    _check_indent(source, lines, at, indent)
    return result, at


def _mapping(source: Source, lines: list[_Line], at: int, indent: int, depth: int) -> tuple[Mapping, int]:
    result = Mapping(lines[at].number)
    while at < len(lines) and lines[at].indent == indent:
        line = lines[at]
        match = _KEY.match(line.text)
        if match is None:
            if re.match(r"-(?:\s|$)", line.text):
                break
            source.fail(f"{line.text[:50]!r} is not 'key: value'", line.number)
        key = _text(source, match[1], line.number)
        if key in result:
            source.fail(f"the key {key!r} occurs twice", line.number)
        rest = line.text[match.end() :]
        at += 1
        value: Any = None
        if rest:
            value = _scalar(source, rest, line.number, depth)
        elif at < len(lines) and (
            lines[at].indent > indent
            or (lines[at].indent == indent and re.match(r"-(?:\s|$)", lines[at].text))
        ):
            value, at = _block(source, lines, at, lines[at].indent, depth + 1)
        result[key] = value
        result.lines[key] = line.number
    _check_indent(source, lines, at, indent)
    return result, at


def _check_indent(source: Source, lines: list[_Line], at: int, indent: int) -> None:
    if at < len(lines) and lines[at].indent > indent:
        source.fail("the indentation does not fit what is above", lines[at].number)


def _scalar(source: Source, text: str, line: int, depth: int) -> Any:
    """Read a value that stands on one line: a text, or a list or mapping in flow style."""
    if text[0] in "[{":
        tokens = _tokens(source, text, line)
        value, rest = _flow(source, tokens, 0, line, depth)
        if rest < len(tokens):
            source.fail("there is text behind the closing bracket", line)
        return value
    return _text(source, text, line)


def _text(source: Source, text: str, line: int) -> Any:
    text = text.strip()
    if text[:1] == '"' and len(text) > 1 and text[-1] == '"':
        try:
            return str(json.loads(text))
        except (ValueError, RecursionError):
            source.fail(f"the quoted text {text[:50]} is not whole", line)
    if text[:1] == "'" and len(text) > 1 and text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if text[:1] in ("&", "*", "!", "|", ">", "%", "@", "`", '"', "'"):
        source.fail(f"{text[:50]!r}: anchors, tags, long texts and unclosed quotes are not read", line)
    return None if text in ("", "~", "null", "Null", "NULL") else text


def _tokens(source: Source, text: str, line: int) -> list[str]:
    tokens, place = [], 0
    while place < len(text):
        match = _FLOW.match(text, place)
        if match is None:
            if not text[place:].strip():
                break
            source.fail(f"{text[place : place + 30]!r} cannot be read in a list in brackets", line)
        tokens.append((match[1] or match[2] or match[3]).strip())
        place = match.end()
    return tokens


def _flow(source: Source, tokens: list[str], at: int, line: int, depth: int) -> tuple[Any, int]:
    if depth > MAX_DEPTH:
        source.fail(f"lists and mappings are nested more than {MAX_DEPTH} deep", line)
    if at >= len(tokens) or tokens[at] in ("]", "}", ",", ":"):
        source.fail("the brackets do not match, or a comma is too many", line)
    if tokens[at] not in ("[", "{"):
        return _text(source, tokens[at], line), at + 1
    opening, at = tokens[at], at + 1
    closing = "]" if opening == "[" else "}"
    items = Sequence(line)
    mapping = Mapping(line)
    while at < len(tokens) and tokens[at] != closing:
        value, at = _flow(source, tokens, at, line, depth + 1)
        if opening == "{":
            if not isinstance(value, str) or value in mapping or tokens[at : at + 1] != [":"]:
                source.fail("a mapping in braces is 'key: value, key: value', each key once", line)
            key = value
            value, at = _flow(source, tokens, at + 1, line, depth + 1)
            mapping[key], mapping.lines[key] = value, line
        else:
            items.append(value)
            items.lines.append(line)
        if tokens[at : at + 1] == [","]:
            at += 1
        elif tokens[at : at + 1] != [closing]:
            source.fail("the brackets do not match, or a comma is missing", line)
    if at >= len(tokens):
        source.fail("a bracket is never closed; is the file cut short?", line)
    return (items if opening == "[" else mapping), at + 1
