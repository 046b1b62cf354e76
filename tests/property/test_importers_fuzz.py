"""Mutations of the samples give a topology or one line of complaint; exports are read back equal."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pycomm.errors import TopologyError
from pycomm.topology import Link, Node, NodeKind, Topology
from pycomm.topology.exporters import write
from pycomm.topology.importers import FORMATS, detect_format, reads
from pycomm.topology.importers.source import decode

FILES = Path(__file__).parent.parent / "topofiles"
SAMPLES = sorted(path.name for path in FILES.iterdir() if path.is_file())

WORDS = """0 -1 1e400 NaN null true [] {} , : # // /* = -> -- é 0x - % | Gbps GB/s GT/s 4xNDR [0-9] [9-0]
; .. 0000: " ' < > & { } [ ] ]]> <!-- --> <a> 999999999999999999999999999999"""
PIECES = st.sampled_from(
    [*WORDS.split(), "", " ", "- ", ": ", "\\", "\n", "\n\n", "\r", "\t", "\u2028", "9" * 5000]
)


@cache
def sample(name: str) -> str:
    return (FILES / name).read_text()


def outcome(text: str, format: str | None = None) -> Topology | None:
    """The topology, or nothing when it was refused in one line."""
    try:
        topology = reads(text, "fuzz", format)
    except TopologyError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "\n" not in refusal
        assert refusal.startswith("fuzz")
        assert len(refusal) < 1000
        return None
    assert topology.devices
    assert all(link.bytes_per_s > 0 for link in topology.links)
    return topology


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_mutations(name: str, data: st.DataObject) -> None:
    text = sample(name)
    format = detect_format(text)
    for _ in range(data.draw(st.integers(1, 4))):
        begin = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20, 200]))
        choice = data.draw(st.sampled_from(["piece", "copy", "cut"]))
        if choice == "cut":
            text = text[:begin]
        elif choice == "copy":
            start = data.draw(st.integers(0, len(text)))
            text = text[:begin] + text[start : start + length] + text[begin:]
        else:
            text = text[:begin] + data.draw(PIECES) + text[begin + length :]
    outcome(text, format)
    outcome(text)


@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
@settings(max_examples=20, deadline=None)
def test_other_values_in_place_of_words(name: str, data: st.DataObject) -> None:
    """Numbers and names are where importers go wrong: every one may become something else."""
    text = sample(name)
    starts = [i for i in range(1, len(text)) if text[i].isalnum() and not text[i - 1].isalnum()]
    for _ in range(data.draw(st.integers(1, 3))):
        begin = data.draw(st.sampled_from(starts))
        end = begin
        while end < len(text) and text[end].isalnum():
            end += 1
        text = text[:begin] + data.draw(PIECES) + text[end:]
    outcome(text, detect_format(sample(name)))


NASTY = (
    "9" * 5000,
    "-1",
    "",
    "1e400",
    "99999999999",
    "0",
    '"',
    "null",
    "[]",
    "{}",
    "é\u2028",
    "1." + "3" * 5000,
)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SAMPLES)
def test_every_word_becomes_something_nasty(name: str) -> None:
    """Chance finds few of the places where one wrong word is enough: try each word of each sample."""
    text = sample(name)
    format = detect_format(text)
    starts = [i for i in range(1, len(text)) if text[i].isalnum() and not text[i - 1].isalnum()]
    for begin in starts:
        end = begin
        while end < len(text) and text[end].isalnum():
            end += 1
        for word in NASTY:
            outcome(text[:begin] + word + text[end:], format)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage(raw: bytes) -> None:
    try:
        text = decode(raw, "fuzz").text
    except TopologyError:
        return
    outcome(text)


@given(st.text(max_size=80), st.sampled_from(sorted(set(FORMATS) - {"toml"})))
@settings(max_examples=300, deadline=None)
def test_text_of_any_kind(text: str, format: str) -> None:
    outcome(text, format)


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=6
).filter(lambda name: name == name.strip() and name.isprintable())


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    names = draw(st.lists(NAMES, min_size=2, max_size=6, unique=True))
    texts = NAMES | st.just("")
    nodes = [Node(names[0], NodeKind.DEVICE)] + [
        Node(
            name,
            draw(st.sampled_from(NodeKind)),
            draw(texts),
            draw(texts),
            draw(texts),
            draw(st.booleans()),
            draw(st.booleans()),
        )
        for name in names[1:]
    ]
    ends = st.tuples(st.integers(0, len(nodes) - 1), st.integers(0, len(nodes) - 1)).filter(
        lambda p: p[0] != p[1]
    )
    rates = st.integers(1, 10**18) | st.sampled_from([12_500_000_000, 50 * 10**9])
    latencies = st.just(0.0) | st.floats(1e-9, 1e-3)
    links = [Link(*p, draw(rates), draw(latencies), draw(texts)) for p in draw(st.lists(ends, max_size=12))]
    return Topology(draw(NAMES), tuple(nodes), tuple(links))


@pytest.mark.parametrize("format", ["node-link", "graphml", "dot"])
@given(topology=topologies())
@settings(max_examples=100, deadline=None)
def test_graphs_are_read_back_equal(format: str, topology: Topology) -> None:
    text = write(topology, format)
    again = reads(text)
    assert again == topology
    assert again.name == topology.name
    assert write(again, format) == text
