"""Topology files: what they mean, and where they are wrong."""

from __future__ import annotations

import inspect
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pycomm.errors import TopologyError
from pycomm.topology import NodeKind, Topology, schema
from pycomm.topology.files import dumps, load, loads
from pycomm.topology.generators import GENERATORS, FabricOptions, box, fat_tree, rail_optimized
from pycomm.topology.lines import line_of
from pycomm.topology.model import Link, Node


def names(topology: Topology) -> list[str]:
    return [node.name for node in topology.nodes]


def wires(topology: Topology) -> list[tuple[str, int]]:
    return [(topology.link_name(i), link.bytes_per_s) for i, link in enumerate(topology.links)]


def test_nodes_and_links() -> None:
    t = loads(
        """
        version = 1
        name = "small"
        source = "made up"
        [[node]]
        name = "h0/gpu[0-1]"
        kind = "device"
        vendor = "nvidia"
        model = "H100"
        [[node]]
        name = "sw"
        kind = "switch"
        multicast = true
        [[link]]
        from = "h0/gpu[0-1]"
        to = "sw"
        bandwidth = "100 Gbit/s"
        back = "12 GB/s"
        latency = "1.5 us"
        kind = "roce"
        """
    )
    assert t.name == "small"
    assert t.notes == ("made up",)
    assert t.nodes == (
        Node("h0/gpu0", NodeKind.DEVICE, "h0", "nvidia", "H100"),
        Node("h0/gpu1", NodeKind.DEVICE, "h0", "nvidia", "H100"),
        Node("sw", NodeKind.SWITCH, multicast=True),
    )
    assert t.links == (
        Link(0, 2, 12_500_000_000, 1.5e-6, "roce"),
        Link(2, 0, 12_000_000_000, 1.5e-6, "roce"),
        Link(1, 2, 12_500_000_000, 1.5e-6, "roce"),
        Link(2, 1, 12_000_000_000, 1.5e-6, "roce"),
    )


NODES = 'version = 1\n[[node]]\nname = "a[0-2] b[0-2]"\nkind = "device"\n'


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ('from = "a0"\nto = "b0"', ["a0 -> b0"]),
        ('from = "a[0-1]"\nto = "b[0-1]"', ["a0 -> b0", "a1 -> b1"]),
        ('from = "a0"\nto = "b[0-1]"\nboth = true', ["a0 -> b0", "b0 -> a0", "a0 -> b1", "b1 -> a0"]),
        ('from = "a*"\nto = "b0"', ["a0 -> b0", "a1 -> b0", "a2 -> b0"]),
        (
            'from = "a[0-1]"\nto = "b[0-1]"\nall_pairs = true',
            ["a0 -> b0", "a0 -> b1", "a1 -> b0", "a1 -> b1"],
        ),
        ('from = "a[0-1]"\nto = "a[0-1]"\nall_pairs = true', ["a0 -> a1", "a1 -> a0"]),
        ('from = "a[0-1]"\nto = "a[0-1]"\nall_pairs = true\nboth = true', ["a0 -> a1", "a1 -> a0"]),
        ('from = "a0"\nto = "b0"\ncables = 2', ["a0 -> b0", "a0 -> b0"]),
    ],
)
def test_pairs_of_links(link: str, expected: list[str]) -> None:
    t = loads(f'{NODES}[[link]]\n{link}\nbandwidth = "1 GB/s"')
    assert wires(t) == [(name, 10**9) for name in expected]


def test_templates_hosts_and_what_they_extend() -> None:
    t = loads(
        """
        version = 1
        [template.small]
        [[template.small.generate]]
        kind = "box"
        devices = 2
        rate = "100 GB/s"
        [template.slow]
        extends = "small"
        [[template.slow.node]]
        name = "nic"
        kind = "nic"
        [[template.slow.link]]
        from = "device0"
        to = "nic"
        bandwidth = "10 GB/s"
        both = true
        [[template.slow.override]]
        from = "*"
        to = "switch"
        scale = 0.5
        [[host]]
        name = "x y[0-1]"
        template = "slow"
        """
    )
    assert names(t)[:5] == ["x/device0", "x/device1", "x/switch", "x/nic", "y0/device0"]
    assert {node.host for node in t.nodes} == {"x", "y0", "y1"}
    assert t.host_numbers() == (0, 0, 1, 1, 2, 2)
    assert dict(wires(t))["x/device1 -> x/switch"] == 50 * 10**9
    assert dict(wires(t))["x/switch -> x/device1"] == 100 * 10**9


def test_a_template_of_several_hosts_keeps_them_apart() -> None:
    t = loads(
        """
        version = 1
        [template.rack]
        [[template.rack.node]]
        name = "tray[0-1]/gpu"
        kind = "device"
        [[template.rack.node]]
        name = "sw"
        kind = "switch"
        [[host]]
        name = "rack[0-1]"
        template = "rack"
        """
    )
    assert [node.host for node in t.nodes] == [
        "rack0/tray0",
        "rack0/tray1",
        "",
        "rack1/tray0",
        "rack1/tray1",
        "",
    ]


def test_generators_by_name_with_prefixes_and_the_catalogue() -> None:
    t = loads(
        """
        version = 1
        [[generate]]
        kind = "rail_optimized"
        hosts = [2, 1]
        host = ["dgx_h100", "atlas_800t_a2"]
        rate = "400 Gbit/s"
        prefix = "a-"
        [[generate]]
        kind = "ring"
        count = 3
        rate = "1 GB/s"
        prefix = "b-"
        """
    )
    assert len(t.devices) == 27
    assert t.nodes[0].name == "a-host0/gpu0"
    assert t.nodes[0].host == "a-host0"
    assert "b-device2" in t.index
    assert any("Ascend" in note for note in t.notes)


def test_ten_lines_are_1250_hosts() -> None:
    text = """
version = 1
[[generate]]
kind = "rail_optimized"
hosts = 1250
host = "dgx_h100"
rate = "400 Gbit/s"
"""
    assert text.count("\n") <= 10
    t = loads(text)
    assert len(t.devices) == 10_000
    assert len(set(t.host_numbers())) == 1250


def test_overrides() -> None:
    base = """version = 1
[[generate]]
kind = "leaf_spine"
leaves = 2
spines = 2
hosts_per_leaf = 1
rate = "8 GB/s"
"""
    full = loads(base + "cables = 2")
    assert len(full.links) == 2 * (2 + 8)

    def changed(override: str) -> Topology:
        return loads(f"{base}cables = 2\n[[override]]\n{override}")

    down = changed('from = "leaf0"\nto = "spine*"\ndown = true\nboth = true\ncables = 1')
    assert len(down.links) == len(full.links) - 4
    assert len(down.find_links("leaf0", "spine1")) == 1
    slow = changed('from = "leaf0"\nto = "spine1"\nscale = 0.25\nlatency = "2 us"\nkind = "old"')
    assert {slow.links[i] for i in slow.find_links("leaf0", "spine1")} == {Link(2, 5, 2 * 10**9, 2e-6, "old")}
    assert {slow.links[i].bytes_per_s for i in slow.find_links("spine1", "leaf0")} == {8 * 10**9}
    gone = changed('node = "spine1"\ndown = true')
    assert "spine1" not in gone.index
    assert len(gone.links) == len(full.links) - 8
    able = changed('node = "leaf* spine*"\nreduction = true')
    assert [node.reduction for node in able.nodes] == [False, False, True, True, True, True]
    both = loads(
        f'{base}[[override]]\nnode = "spine0"\ndown = true\n'
        '[[override]]\nfrom = "leaf0"\nto = "spine1"\nbandwidth = "1 GB/s"'
    )
    assert both.links[both.find_links("leaf0", "spine1")[0]].bytes_per_s == 10**9


def test_every_parameter_of_every_generator_can_stand_in_a_file() -> None:
    for kind, generator in GENERATORS.items():
        spec, required = schema.parameters_of(kind)
        parameters = inspect.signature(generator).parameters
        wanted = {name for name, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD}
        if len(wanted) < len(parameters):
            wanted |= set(FabricOptions.__annotations__)
        assert set(spec) == wanted - {"name"} | {"kind", "prefix"}, kind
        assert set(required) <= set(spec)


ROUND_TRIPS: dict[str, Any] = {
    "box": lambda: box(
        8, "450 GB/s", nics=4, nic_rate="100 Gbit/s", vendor="nvidia", model="H100", multicast=True
    ),
    "rails": lambda: rail_optimized(
        6, box(2, "100 GB/s", nics=2), rate="50 GB/s", radix=4, levels=3, latency="0.65 us", link_kind="roce"
    ),
    "three levels": lambda: fat_tree(radix=4, levels=3, rate="25 GB/s", spine_rate="50 GB/s"),
    "odd names": lambda: Topology(
        'na"me',
        (
            Node("a b", NodeKind.DEVICE, "x"),
            Node("[1]", NodeKind.NIC, ""),
            Node("*", NodeKind.HOST, "h\\"),
            Node("p/q/r7", NodeKind.SWITCH, "", reduction=True),
            Node("é\t\x7f", NodeKind.DEVICE, "é"),
        ),
        (Link(0, 1, 1), Link(1, 0, 7, 1e-9), Link(4, 3, 10**18, 0.1, 'k"'), Link(3, 4, 999_999_999_999)),
        ("one.", 'two "2".'),
    ),
}


@pytest.mark.parametrize("case", ROUND_TRIPS)
def test_written_files_read_back_as_equal(case: str) -> None:
    t = ROUND_TRIPS[case]()
    text = dumps(t)
    back = loads(text)
    assert back == t
    assert (back.name, back.notes, back.nodes, back.links) == (t.name, t.notes, t.nodes, t.links)
    assert dumps(back) == text


def test_written_files_are_short() -> None:
    t = rail_optimized(32, box(8, "450 GB/s", nics=8), rate="50 GB/s")
    assert dumps(t).count("\n") < len(t.links) / 8


TABLES = """version = 1  # [[node]] name = 3
source = "[[node]]"
[[node]]
name = "a"
kind = "device"

[[node]]
name = 'b'
"kind" = '''
[[node]]
name = 4'''
[template.box]
[[template.box.node]]
name = "a"
[[template.box.node]]
name = "b"
kind = "nic"
[template."odd name"]
extends = "a"
[[template.box2.link]]
from = "a"
"""

INLINE = """version = 1
template.x.source = ["a", # comment ]
  "b"]
link = [
  {from = "a", to = "#]}", bandwidth = "1 GB/s"}, {from = "b"}, # {from =
  {from = 'a"', to = '''
''b''', cables = 2},
]
"""


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        (TABLES, ("version",), 1),
        (TABLES, ("node", 0, "name"), 4),
        (TABLES, ("node", 1), 7),
        (TABLES, ("node", 1, "kind"), 9),
        (TABLES, ("node", 1, "host"), 7),
        (TABLES, ("template", "box", "node", 0, "name"), 14),
        (TABLES, ("template", "box", "node", 1, "kind"), 17),
        (TABLES, ("template", "odd name", "extends"), 19),
        (TABLES, ("template", "box2", "link", 0, "from"), 21),
        (TABLES, ("nothing",), 1),
        (INLINE, ("template", "x", "source", 1), 3),
        (INLINE, ("link", 0, "bandwidth"), 5),
        (INLINE, ("link", 1, "from"), 5),
        (INLINE, ("link", 2, "from"), 6),
        (INLINE, ("link", 2, "cables"), 7),
    ],
)
def test_lines_of_keys(text: str, path: tuple[str | int, ...], line: int) -> None:
    tomllib.loads(text)
    assert line_of(text, path) == line


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="give the path of a topology file"):
        load(tmp_path / "absent.toml")
    with pytest.raises(TopologyError, match="give the path of a topology file"):
        load(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TopologyError, match="not a text file"):
        load(tmp_path / "binary.toml")


def test_extends_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('version = 1\n[[node]]\nname = "x"\nkind = "device"\n')
    (tmp_path / "b.toml").write_text(
        'version = 1\nextends = "a.toml"\n[[node]]\nname = "y"\nkind = "device"\n'
    )
    t = load(tmp_path / "b.toml")
    assert t.name == "b"
    assert names(t) == ["x", "y"]
    (tmp_path / "c.toml").write_text('version = 1\nextends = "c.toml"\n')
    with pytest.raises(TopologyError, match=r"c\.toml:2: extends: .*made from itself"):
        load(tmp_path / "c.toml")
    (tmp_path / "d.toml").write_text('version = 1\nextends = "e.toml"\n')
    with pytest.raises(TopologyError, match=r"d\.toml:2: extends: .*cannot be read"):
        load(tmp_path / "d.toml")


@pytest.mark.slow
def test_a_hundred_thousand_vertices_load_in_seconds() -> None:
    n = 100_000
    node = "".join(f'  {{name = "r{i % 977}x{i}", kind = "device"}},\n' for i in range(n))
    link = "".join(
        f'  {{from = "r{i % 977}x{i}", to = "r{(i + 1) % n % 977}x{(i + 1) % n}", bandwidth = "25 GB/s"}},\n'
        for i in range(n)
    )
    began = time.process_time()
    t = loads(f"version = 1\nnode = [\n{node}]\nlink = [\n{link}]\n")
    assert (len(t.nodes), len(t.links)) == (n, n)
    assert time.process_time() - began < 60
