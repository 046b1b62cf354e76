"""XML without its dangers: elements with their lines, nothing else.

No entity is ever defined or fetched. A document type that only names an external file, as hwloc writes, is
passed over; one that defines anything itself is refused, and so is every entity but XML's own five. Depth,
number of elements and length of text are limited.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from xml.parsers import expat

from pycomm.topology.importers.source import Source

__all__ = ["Element", "parse_xml", "root_tag"]

MAX_DEPTH = 256
MAX_ELEMENTS = 4_000_000

_ROOT = re.compile(r"(?:\s++|<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^<>\[]*>)*+<([A-Za-z_][\w.:-]*)", re.DOTALL)
_DOCTYPE = re.compile(r"<!DOCTYPE\s+([A-Za-z_][\w.:-]*)")
_FOREIGN_ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot|apos|#[0-9]+|#x[0-9a-fA-F]+);)")


class Element:
    """A tag with its attributes, children, text and line. Namespaces are dropped from names."""

    __slots__ = ("attributes", "children", "line", "tag", "text")

    def __init__(self, tag: str, attributes: dict[str, str], line: int) -> None:
        self.tag = tag
        self.attributes = attributes
        self.children: list[Element] = []
        self.line = line
        self.text = ""

    def get(self, name: str, default: str = "") -> str:
        """Value of an attribute without spaces around it, or the default."""
        return self.attributes.get(name, default).strip()

    def named(self, tag: str) -> Iterator[Element]:
        """Children with this tag, in order."""
        return (child for child in self.children if child.tag == tag)

    def walk(self) -> Iterator[Element]:
        """Yield this element and everything below it, in document order."""
        stack = [self]
        while stack:
            element = stack.pop()
            yield element
            stack.extend(reversed(element.children))


def root_tag(text: str) -> str:
    """Tag of the first element, or of the document type, without namespace; ``""`` when there is none."""
    match = _ROOT.match(text) or _DOCTYPE.search(text)
    return match[1].rpartition(":")[2] if match else ""


def _local(name: str) -> str:
    return name.rpartition(" ")[2]


def parse_xml(source: Source) -> Element:
    """Parse a document.

    Raises
    ------
    TopologyError
        It is cut short or malformed, defines entities, or is too deep or too large.
    """
    parser = expat.ParserCreate("utf-8", " ")
    parser.buffer_text = True
    document = Element("", {}, 0)
    stack = [document]
    count = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal count
        count += 1
        line = parser.CurrentLineNumber
        if len(stack) > MAX_DEPTH:
            source.fail(f"elements are nested more than {MAX_DEPTH} deep; no topology file is", line)
        if count > MAX_ELEMENTS:
            source.fail(f"there are more than {MAX_ELEMENTS} elements; that is too many", line)
        element = Element(_local(name), {_local(key): value for key, value in attributes.items()}, line)
        stack[-1].children.append(element)
        stack.append(element)

    def end(_name: str) -> None:
        stack.pop()

    def text(data: str) -> None:
        stack[-1].text += data

    def doctype(_name: str, _system: str | None, _public: str | None, internal: int) -> None:
        if internal:
            refuse()

    def refuse(*_ignored: object) -> None:
        source.fail(
            "the document type defines entities or elements; they are refused because they can be used to "
            "attack; remove the <!DOCTYPE ...> part",
            parser.CurrentLineNumber,
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = doctype
    parser.EntityDeclHandler = refuse
    parser.SkippedEntityHandler = refuse
    if "<!DOCTYPE" in source.text and (foreign := _FOREIGN_ENTITY.search(source.text)):
        line = source.text.count("\n", 0, foreign.start()) + 1
        source.fail("only XML's own five entities are read; write the character itself instead", line)
    try:
        parser.Parse(source.text.encode(), True)
    except expat.ExpatError as error:
        source.fail(
            f"this is not whole XML: {expat.ErrorString(error.code)}; is the file cut short?", error.lineno
        )
    except UnicodeEncodeError:
        source.fail("the text has characters that XML cannot have")
    return document.children[0]
