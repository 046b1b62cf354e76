"""Damaged and hostile files: one line each, with the place and the remedy; and the parsers' own limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pycomm.errors import TopologyError
from pycomm.topology.importers import read, reads, source
from pycomm.topology.importers.hostlist import expand
from pycomm.topology.importers.source import Source
from pycomm.topology.importers.yamltext import parse_yaml

FILES = Path(__file__).parent.parent / "topofiles" / "hostile"

COMPLAINTS = {
    "alias.yaml": r":1: .*anchors, tags",
    "binary.bin": r":1: byte 7 is 0, so this is a binary file",
    "bomb.xml": r":2: only XML's own five entities are read",
    "circle.conf": r":1: switch 'a' is, through others, below itself",
    "edge_to_nowhere.json": r": edges\[0\]: there is no node 'b'",
    "external.graphml": r":3: only XML's own five entities are read",
    "latin.conf": r":1: the text is not UTF-8; convert it",
    "lonely.out": r": there are 0 switches and 1 other ends, but no links; is the file cut short",
    "nowhere.conf": r":1: switch 'a' leads to 'missing', which is not described",
    "page.xml": r": XML with the root element <html> is none of",
    "parameter.xml": r":2: only XML's own five entities are read",
    "prose.txt": r": the format is not recognised; name it with format=, one of toml",
    "range.conf": r":1: .*stands for more than 1000000 names",
    "subset.xml": r":1: the document type defines entities or elements; they are refused",
    "truncated.dot": r":5: '}' is wanted here, not the end of the file; is the file cut short",
    "truncated.json": r":8: this is not whole JSON: .*is the file cut short",
    "truncated.out": r":15: port 31 leads to switch 'S-0000000000000200', which has no section",
    "truncated.xml": r":9: this is not whole XML: .*is the file cut short",
    "twice.json": r": nodes\[1\]: 'a' is described twice",
    "unfinished.json": r": status: status is 'initializing', not 'completed'",
    "unit.json": r": edges\[0\]: capacity='5 furlongs' has no unit",
    "zero.json": r": edges\[0\]: .*bandwidth of 0 GB/s; .*leave out a link that is down",
}


def test_every_hostile_file_is_listed() -> None:
    assert {path.name for path in FILES.iterdir()} == set(COMPLAINTS)


@pytest.mark.parametrize("name", COMPLAINTS)
def test_one_line_with_place_and_remedy(name: str) -> None:
    with pytest.raises(TopologyError, match=rf"^{FILES / name}{COMPLAINTS[name]}") as caught:
        read(FILES / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_deep_nesting() -> None:
    deep_xml = "<system>" + "<cpu>" * 400 + "</cpu>" * 400 + "</system>"
    for text, format in (
        (deep_xml, "nccl-xml"),
        ("[" * 100_000, "matrix"),
        ('{"nodes":' + "[" * 100_000, "node-link"),
        ("graph {" + "{" * 100_000, "dot"),
        ("a:\n" + "".join(" " * i + "- \n" for i in range(1, 500)), "topograph"),
        ("a: " + "[" * 5_000 + "]" * 5_000, "topograph"),
        ("- " * 5_000 + "a", "slurm-yaml"),
    ):
        with pytest.raises(TopologyError, match=r"deep|cut short"):
            reads(text, format=format)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("x" + "\n" * 100_000 + "y", None),
        (" " * 100_000 + "$", "dot"),
        ("graph { a " + " " * 100_000 + "$", "dot"),
        ("graph { a [" + 'b="c",' * 20_000, "dot"),
        ("- " * 100_000 + ": [", "slurm-yaml"),
        ("a" + " " * 100_000 + "b", "topograph"),
        ('{"rank_list": ' + "/* " * 100_000, "ranktable"),
        ('{"rank_list": ' + '" ' * 100_001, "ranktable"),
        ("<!--" * 50_000, None),
        (" \n" * 100_000 + "<", None),
        ('Ca 1 "H-1" # "n ib' + "_a" * 50_000 + '!"', "ibnetdiscover"),
        ("[[0, " + '"' + "9" * 50_000 + ' GB/s"], [1, 0]]', "matrix"),
        ("SwitchName=" + "[1]" * 30_000 + "[", "slurm-conf"),
    ],
)
@pytest.mark.timeout(20)
def test_nothing_takes_more_than_its_length(text: str, format: str | None) -> None:
    """Each of these would run for minutes if a pattern could match the same text in many ways."""
    with pytest.raises(TopologyError):
        reads(text, format=format)


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_FILE_BYTES", 1000)
    (tmp_path / "large.conf").write_text("# " + "x" * 2000)
    with pytest.raises(TopologyError, match="is larger than 0 MiB"):
        read(tmp_path / "large.conf")


def test_vertices_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_VERTICES", 50)
    with pytest.raises(TopologyError, match="more than 50 vertices"):
        reads("SwitchName=s Nodes=n[1-100]\n")


@pytest.mark.parametrize("text", ["", "   \n\n", "\ufeff"])
def test_empty_files(text: str) -> None:
    with pytest.raises(TopologyError, match=r"empty|not recognised"):
        reads(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", ["a"]),
        ("a[1-3]", ["a1", "a2", "a3"]),
        ("a[08-10,2]x", ["a08x", "a09x", "a10x", "a2x"]),
        ("r[1-2]n[0-1],z", ["r1n0", "r1n1", "r2n0", "r2n1", "z"]),
        ("[1101-1102]", ["1101", "1102"]),
    ],
)
def test_host_lists(text: str, names: list[str]) -> None:
    assert expand(Source("f", ""), text, 1) == names


@pytest.mark.parametrize(
    "text", ["a[", "a]", "a[b[1]]", "a[1-]", "a[3-1]", "a,,b", "", "a[]", "[1-9999999][1-9999999]"]
)
def test_bad_host_lists(text: str) -> None:
    with pytest.raises(TopologyError, match=r"^f:7: "):
        expand(Source("f", ""), text, 7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb:\n- x\n- y: z # c\n  w: 'it''s'\n", {"a": "1", "b": ["x", {"y": "z", "w": "it's"}]}),
        (
            "- - a\n  - b\n-\n  c: [1, [2, 'x, y'], {k: v}]\n",
            [["a", "b"], {"c": ["1", ["2", "x, y"], {"k": "v"}]}],
        ),
        ('"q: \\u0041": ~\nurl: http://x#y\n', {"q: A": None, "url": "http://x#y"}),
        ("a: [1,\n  2, # two\n  3]\nb: {}\nc: []\n", {"a": ["1", "2", "3"], "b": {}, "c": []}),
        ("---\nk/a.b: c-d\n...\n", {"k/a.b": "c-d"}),
        ("-1: a\n", {"-1": "a"}),
        ("", None),
    ],
)
def test_yaml(text: str, value: Any) -> None:
    assert parse_yaml(Source("f", text)) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\na: 2\n", 2),
        ("a: 1\n  b: 2\n", 2),
        ("a:\n\t- b\n", 2),
        ("a: |\n  long\n", 1),
        ("a: [1, 2\n", 1),
        ("a: [1, 2]]\n", 1),
        ("a: [1 2, ]x\n", 1),
        ("a: {b}\n", 1),
        ("a: b\n---\nc: d\n", 2),
        ("a\nb\n", 2),
        ("a: *b\n", 1),
        ("- a\nb: c\n", 2),
        ('a: "b\n', 1),
    ],
)
def test_yaml_that_is_refused(text: str, line: int) -> None:
    with pytest.raises(TopologyError, match=f"^f:{line}: "):
        parse_yaml(Source("f", text))
