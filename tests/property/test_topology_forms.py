"""Any topology can be written and read again; plain TOML is as tomllib reads it; damage gives one line."""

from __future__ import annotations

import tomllib

from hypothesis import given
from hypothesis import strategies as st

from pycomm.errors import TopologyError
from pycomm.topology import Link, Node, NodeKind, Topology
from pycomm.topology.files import dumps, loads
from pycomm.topology.lines import line_of
from pycomm.topology.names import expand, fold
from pycomm.topology.plaintoml import read_plain

ALPHABET = st.characters(codec="utf-8", exclude_categories=("Cs",), exclude_characters="\x00")
SMALL = st.sampled_from(
    ["gpu0", "gpu1", "gpu2", "h0/gpu1", "h1/gpu1", "h1/gpu2", "h2/gpu2", "sw", "a01", "a02", "9"]
)
NAMES = st.one_of(SMALL, st.text(ALPHABET, min_size=1, max_size=8))


@given(st.lists(NAMES, min_size=1, max_size=20))
def test_folded_names_expand_to_themselves(names: list[str]) -> None:
    assert expand(" ".join(fold(names))) == names


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(NAMES, min_size=1, max_size=12, unique=True))
    nodes = []
    for name in names:
        kind = draw(st.sampled_from(NodeKind))
        able = kind is NodeKind.SWITCH
        nodes.append(
            Node(
                name,
                kind,
                draw(st.one_of(st.just(name.rpartition("/")[0]), st.sampled_from(["", "h", "x y"]))),
                draw(st.sampled_from(["", "nvidia"])),
                draw(st.sampled_from(["", 'H"1"'])),
                able and draw(st.booleans()),
                able and draw(st.booleans()),
            )
        )
    links: list[Link] = []
    if len(nodes) > 1:
        rates = st.one_of(st.sampled_from([10**9, 12_500_000_000, 25 * 10**9]), st.integers(1, 10**18))
        for _ in range(draw(st.integers(0, 20))):
            src = draw(st.integers(0, len(nodes) - 1))
            dst = (src + draw(st.integers(1, len(nodes) - 1))) % len(nodes)
            link = Link(
                src,
                dst,
                draw(rates),
                draw(st.one_of(st.just(0.0), st.just(1.5e-6), st.floats(0, 1e6, allow_subnormal=False))),
                draw(st.sampled_from(["", "ib"])),
            )
            links += [link] * draw(st.integers(1, 2))
            if draw(st.booleans()):
                links.append(link._replace(src=dst, dst=src))
    return Topology(
        draw(st.text(ALPHABET, max_size=6)),
        tuple(nodes),
        tuple(links),
        tuple(draw(st.lists(st.text(ALPHABET)))),
    )


@given(topologies())
def test_written_topologies_read_back(t: Topology) -> None:
    back = loads(dumps(t))
    assert (back.name, back.nodes, back.links) == (t.name, t.nodes, t.links)
    assert back.notes == tuple(dict.fromkeys(t.notes))


LINES = st.lists(
    st.sampled_from(
        [
            'a = "x"',
            "b = 12",
            "b = 012",
            "c = true",
            "c = 1.5",
            "[[n]]",
            "[[n]]  ",
            "[n]",
            "[[m]]",
            "n = [",
            "m = [",
            "]",
            '  {a = "x", b = 3},',
            '  {a = "x", b = 3}',
            "  {a = 1, a = 2},",
            "  {a = 1,},",
            "  {},",
            '  "text",',
            "  7,",
            "  7",
            "# comment",
            "",
            'd = "\\u0041"',
            'd = "a" # no',
            "e = 'x'",
            'f = "\t"',
            'a.b = "x"',
            '{a = "1"}',
            "\r",
            'a = "é"\r',
        ]
    ),
    max_size=8,
)


@given(LINES)
def test_plain_files_are_read_as_tomllib_reads_them(lines: list[str]) -> None:
    text = "\n".join(lines)
    plain = read_plain(text)
    if plain is not None:
        assert plain == tomllib.loads(text)


SAMPLE = """version = 1
name = "x"
[template.box]
[[template.box.generate]]
kind = "box"
devices = 2
rate = "1 GB/s"
[[node]]
name = "a[0-3] sw"
kind = "switch"
[[host]]
name = "h[0-1]"
template = "box"
[[generate]]
kind = "leaf_spine"
leaves = 2
spines = 2
hosts_per_leaf = 2
rate = "1 GB/s"
host = "box"
prefix = "p-"
[[link]]
from = "a*"
to = "sw2"
bandwidth = "1 GB/s"
[[override]]
from = "h0/*"
to = "*"
scale = 0.5
"""


@given(st.data())
def test_damaged_files_are_loaded_or_refused_in_one_line(data: st.DataObject) -> None:
    text = SAMPLE
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 8))
        junk = data.draw(
            st.sampled_from(
                ["", '"', "[", "]", "\n", "0", "-1", "*", "[0-9]", "true", "1e9", "{", " ", "\\", "x", "[1]"]
            )
        )
        text = text[:at] + junk + text[at + length :]
    message = ""
    try:
        loads(text)
    except TopologyError as error:
        message = str(error)
    assert "\n" not in message


@given(
    st.sampled_from(
        [("node", 0, "name"), ("template", "box", "generate", 0, "rate"), ("override", 0, "scale")]
    )
)
def test_lines_count_from_the_start(path: tuple[str | int, ...]) -> None:
    key = str(path[-1])
    line = SAMPLE.split("\n")[line_of(SAMPLE, path) - 1]
    assert line.startswith(f"{key} = ")
