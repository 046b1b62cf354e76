"""Topologies from the files that people have: one module for each format, all answering with a Topology.

What a file does not say is assumed openly: every assumption, and everything that was left out, is one of
the topology's notes, and keywords change the assumptions. A file that is damaged, hostile or of another
format is refused with one line that names the place and the remedy.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

from pycomm.errors import TopologyError, UsageError
from pycomm.topology.importers.source import Source, read_text
from pycomm.topology.importers.xmltext import root_tag
from pycomm.topology.model import Topology

__all__ = ["FORMATS", "Format", "assumptions", "detect_format", "read", "reads"]


class Format(NamedTuple):
    """A format: where its reader is, and what it is."""

    module: str
    reader: str
    help: str


_HERE = "pycomm.topology.importers"

FORMATS: dict[str, Format] = {
    "toml": Format("pycomm.topology.files", "loads", "pycomm's own topology files"),
    "nccl-xml": Format(f"{_HERE}.nccl", "nccl", "topology XML of NCCL and RCCL (NCCL_TOPO_DUMP_FILE)"),
    "hwloc-xml": Format(f"{_HERE}.hwloc", "hwloc", "hwloc's XML, versions 2 and 3 (lstopo --of xml)"),
    "ranktable": Format(f"{_HERE}.ranktable", "ranktable", "Huawei's rank tables, versions 1.0, 1.2 and 2.0"),
    "ibnetdiscover": Format(f"{_HERE}.ibnetdiscover", "ibnetdiscover", "output of ibnetdiscover"),
    "slurm-conf": Format(f"{_HERE}.slurm", "slurm_conf", "Slurm's topology.conf"),
    "slurm-yaml": Format(f"{_HERE}.slurm", "slurm_yaml", "Slurm's topology.yaml"),
    "topograph": Format(f"{_HERE}.slurm", "topograph", "Topograph's models"),
    "graphml": Format(f"{_HERE}.graphml", "graphml", "GraphML, also yEd's and the Internet Topology Zoo's"),
    "dot": Format(f"{_HERE}.dot", "dot", "Graphviz' DOT"),
    "node-link": Format(f"{_HERE}.nodelink", "node_link", "node-link JSON of networkx and D3"),
    "astra-sim": Format(f"{_HERE}.simulators", "astrasim", "ASTRA-sim's network yml"),
    "simai": Format(f"{_HERE}.simulators", "simai", "topology text of SimAI and of ASTRA-sim's ns-3"),
    "matrix": Format(f"{_HERE}.matrix", "matrix", "matrices of bandwidths: MSCCL's JSON, JSON lists, CSV"),
}
"""Every format that is read, by name."""

_XML_ROOTS = {"system": "nccl-xml", "topology": "hwloc-xml", "graphml": "graphml"}
_LINES = (
    ("ibnetdiscover", re.compile(r'^(?:switch|ca|hca|rt)\s+[0-9]+\s+"', re.IGNORECASE | re.MULTILINE)),
    ("slurm-conf", re.compile(r"^[ \t]*(?:switchname|blockname)\s*=", re.IGNORECASE | re.MULTILINE)),
    ("slurm-yaml", re.compile(r"^-\s+topology\s*:", re.MULTILINE)),
    ("astra-sim", re.compile(r"^npus_count\s*:", re.MULTILINE)),
    ("topograph", re.compile(r"^(?:switches|blocks)\s*:", re.MULTILINE)),
)
_DOT = re.compile(
    r"(?:\s++|//[^\n]*\n|/\*.*?\*/|#[^\n]*\n)*+(?:strict\s+)?(?:di)?graph\b[^{\n]*\{",
    re.IGNORECASE | re.DOTALL,
)
_SIMAI = re.compile(
    r"\s*[0-9]+[ \t]+[0-9]+[ \t]+[0-9]+(?:[ \t]+[0-9]+[ \t]+[0-9]+(?:[ \t]+\S+)?)?[ \t]*\r?\n"
)
_CELL = re.compile(r"[-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?(?:\s*[A-Za-z/]+)?|-|")
_TOML = re.compile(r"\s*+(?:\[[\[\w .\"'-]+\]|[\w-]+\s*=)", re.MULTILINE)


def detect_format(text: str, name: str = "") -> str:
    """Tell a file's format from its content, and from its name only where the content leaves it open.

    Parameters
    ----------
    text
        The file's content.
    name
        Its name.

    Raises
    ------
    TopologyError
        It is none of :data:`FORMATS`.
    """
    source = Source(name or "text", text)
    start = text.lstrip()
    suffix = Path(name).suffix.lower()
    if not start:
        source.fail("the file is empty")
    if suffix == ".toml":
        return "toml"
    if start[0] == "<":
        tag = root_tag(text)
        if tag not in _XML_ROOTS:
            source.fail(f"XML with the root element <{tag[:40]}> is none of {', '.join(_XML_ROOTS.values())}")
        return _XML_ROOTS[tag]
    found = (_json_format(text) if start[0] == "{" or re.match(r"\[\s*\[", start) else "") or _text_format(
        text
    )
    if not found and suffix in (".csv", ".tsv"):
        found = "matrix"
    if not found and _TOML.match(re.sub(r"(?m)^[ \t]*#.*$", "", text).lstrip()):
        found = "toml"
    if not found and _is_table(text):
        found = "matrix"
    if not found:
        source.fail(f"the format is not recognised; name it with format=, one of {', '.join(FORMATS)}")
    return found


def _text_format(text: str) -> str:
    """Tell a format from a line that only it has, ``""`` when there is none."""
    found = next((one for one, pattern in _LINES if pattern.search(text)), "")
    if not found and _DOT.match(text):
        found = "dot"
    if not found and _SIMAI.match(text):
        found = "simai"
    return found


def _is_table(text: str) -> bool:
    """Whether the last of the first few lines is a row of numbers as long as the others."""
    lines = list(itertools.islice((line.strip() for line in text.splitlines() if line.strip()), 4))
    delimiter = next((letter for letter in ",;\t" if letter in lines[-1]), None)
    rows = [line.split(delimiter) for line in lines if not line.startswith("#")]
    if len(rows) < 2 or len(rows[-1]) < 2 or any(len(row) != len(rows[-1]) for row in rows[1:]):
        return False
    return all(_CELL.fullmatch(cell.strip()) for cell in rows[-1][1:])


def _json_format(text: str) -> str:
    if any(f'"{key}"' in text for key in ("server_list", "rank_list", "group_list")):
        return "ranktable"
    if '"nodes"' in text and ('"edges"' in text or ('"links"' in text and '"msccl_type"' not in text)):
        return "node-link"
    if '"links"' in text or text.lstrip()[0] == "[":
        # TOML's [[table]] begins like a list of lists.
        return "" if re.match(r"\s*\[\[\s*[A-Za-z_]", text) else "matrix"
    return ""


def assumptions(format: str) -> tuple[str, ...]:
    """Keywords that a format's reader takes.

    Raises
    ------
    UsageError
        There is no such format.
    """
    return tuple(
        name
        for name, parameter in inspect.signature(_reader(format)).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    )


def _reader(format: str) -> Any:
    if format not in FORMATS:
        raise UsageError(f"there is no format {format!r}; there are {', '.join(FORMATS)}")
    return getattr(importlib.import_module(FORMATS[format].module), FORMATS[format].reader)


def reads(text: str, name: str = "text", format: str | None = None, **assume: str | int) -> Topology:
    """Read a topology from text.

    Parameters
    ----------
    text, name
        The file's content, and its name for messages.
    format
        One of :data:`FORMATS`; by default it is told from the content.
    **assume
        What the file does not say, such as ``link="400 Gbit/s"``; see :func:`assumptions`.

    Raises
    ------
    TopologyError
        The text is not a topology of the format.
    UsageError
        There is no such format or assumption.
    """
    chosen = format or detect_format(text, name)
    reader = _reader(chosen)
    known = assumptions(chosen)
    for keyword in assume:
        if keyword not in known:
            takes = f"takes {', '.join(known)}" if known else "takes none"
            raise UsageError(f"{keyword}= is no assumption of the format {chosen}, which {takes}")
    if chosen == "toml":
        return reader(text, name)  # type: ignore[no-any-return]
    try:
        return reader(Source(name, text), **assume)  # type: ignore[no-any-return]
    except TopologyError as error:
        # The model's own checks know the topology's name only.
        message = str(error)
        raise TopologyError(message if message.startswith(name) else f"{name}: {message}") from None


def read(path: str | Path, format: str | None = None, **assume: str | int) -> Topology:
    """Read a topology from a file; parameters as in :func:`reads`.

    Raises
    ------
    TopologyError
        The file cannot be read, or is not a topology of the format.
    UsageError
        There is no such format or assumption.
    """
    source = read_text(path)
    if (format or detect_format(source.text, source.name)) == "toml" and not assume:
        from pycomm.topology.files import load

        return load(path)  # files may name others that stand beside them
    return reads(source.text, source.name, format, **assume)
