"""The catalogue: what every file must be, and the published graphs as they are described."""

from __future__ import annotations

import tomllib
from collections import Counter

import numpy as np
import pytest

from pycomm.errors import TopologyError
from pycomm.topology import NodeKind, Topology, catalogue
from pycomm.topology.checks import problems, remarks
from pycomm.topology.files import dumps, loads

GB = 10**9


def rates(t: Topology) -> dict[tuple[str, str], int]:
    """Bandwidth from each vertex to each it is joined with, in GB/s times 10."""
    total: Counter[tuple[str, str]] = Counter()
    for link in t.links:
        total[t.nodes[link.src].name, t.nodes[link.dst].name] += link.bytes_per_s * 10 // GB
    return dict(total)


@pytest.mark.parametrize("name", catalogue.names())
def test_every_topology_is_sound_and_says_where_it_comes_from(name: str) -> None:
    t = catalogue.named(name)
    assert t.name == name
    assert list(problems(t)) == []
    assert list(remarks(t)) == []
    assert t.notes
    assert all(note.endswith(".") for note in t.notes)
    if len(t.nodes) < 300:
        assert loads(dumps(t)) == t
    used = {node.name for node in t.nodes}
    assert not any(node.kind is NodeKind.HOST for node in t.nodes)
    assert len(used) == len(t.nodes)


def test_the_readme_lists_every_file() -> None:
    readme = (catalogue.folder() / "README.md").read_text()
    for name in catalogue.names():
        assert name.startswith("published_") or f"`{name}`" in readme, name


def test_examples_of_the_readme_load() -> None:
    readme = (catalogue.folder() / "README.md").read_text()
    examples = [block.split("```")[0] for block in readme.split("```toml\n")[1:]]
    assert len(examples) == 2
    for example in examples:
        tomllib.loads(example)
        assert len(loads(example).devices) in (10_000, 1024)


def test_unknown_names() -> None:
    with pytest.raises(TopologyError, match="did you mean 'dgx_h100'"):
        catalogue.named("dgx_h10")


@pytest.mark.parametrize(
    ("name", "devices", "egress"),
    [  # GB/s that leave each device, without its way to a NIC
        ("dgx1_v100", 8, 150 + 16),
        ("dgx2_v100", 16, 150 + 16),
        ("dgx_a100", 8, 300),
        ("dgx_h100", 8, 450),
        ("dgx_b200", 8, 900),
        ("gb200_nvl72", 72, 900),
        ("mi300x", 8, 448),
        ("gaudi3", 8, 525),
        ("atlas_800_9000", 8, 90 + 16),
        ("atlas_800t_a2", 8, 196),
        ("atlas_800t_a3", 16, 270 + 196),
        ("cloudmatrix384", 768, 270 + 196),
        ("biren_br100", 8, 224),
        ("tpu_v4_4x4x4", 64, 300),
        ("tpu_v5p_8x8x8", 512, 600),
    ],
)
def test_what_a_device_can_send(name: str, devices: int, egress: int) -> None:
    t = catalogue.named(name)
    nic = np.array([node.kind is NodeKind.NIC for node in t.nodes])
    inside = ~nic[t.table.dst]
    sent = np.zeros(len(t.nodes), np.int64)
    np.add.at(sent, t.table.src[inside], t.table.bytes_per_s[inside])
    assert len(t.devices) == devices
    assert {int(sent[d]) for d in t.devices} == {egress * GB}


def test_the_supernode_does_not_block() -> None:
    t = catalogue.named("cloudmatrix384")
    down: Counter[str] = Counter()
    up: Counter[str] = Counter()
    for link in t.links:
        a, b = t.nodes[link.src], t.nodes[link.dst]
        if a.kind is NodeKind.SWITCH and a.host:
            (down if b.host else up)[a.name] += link.bytes_per_s
    assert len(up) == 48 * 7
    assert down == up


def test_dies_of_mi250x_have_eight_links() -> None:
    t = catalogue.named("mi250x_frontier")
    links: Counter[str] = Counter()
    for link in t.links:
        links[t.nodes[link.src].name] += 1 if link.kind == "pcie" else link.bytes_per_s // (50 * GB)
    # and one to the processor, which is not drawn
    assert {links[f"die{i}"] for i in range(8)} == {7}


DGX1V = {
    50: "0-1 0-4 1-3 2-3 2-6 4-5 5-7 6-7",
    25: "0-2 0-3 1-2 1-5 3-7 4-6 4-7 5-6",
}
MI250 = {
    200: "0-1 2-3 4-5 6-7 8-9 10-11 12-13 14-15",
    100: "0-4 3-7 8-12 11-15",
    50: "0-8 1-5 1-9 1-10 2-6 2-9 2-10 3-11 4-6 5-6 5-7 9-13 10-14 12-14 13-14 13-15",
}


def cables(table: dict[int, str], what: str, prefix: str = "") -> dict[tuple[str, str], int]:
    """Both ways of each pair in a table by GB/s."""
    made = {}
    for rate, pairs in table.items():
        for pair in pairs.split():
            a, b = (f"{prefix}{what}{number}" for number in pair.split("-"))
            made[a, b] = made[b, a] = rate * 10
    return made


def star(devices: list[str], switch: str, tenths: int) -> dict[tuple[str, str], int]:
    return {pair: tenths for d in devices for pair in ((d, switch), (switch, d))}


def boxes(count: int, size: int) -> list[list[str]]:
    return [[f"box{b}/gpu{i}" for i in range(size)] for b in range(count)]


def a100(count: int) -> dict[tuple[str, str], int]:
    made: dict[tuple[str, str], int] = {}
    for b, gpus in enumerate(boxes(count, 8)):
        made |= star(gpus, f"box{b}/nvswitch", 3000)
        made |= star(gpus[::2], "even", 250) | star(gpus[1::2], "odd", 250)
    return made


def dgx2() -> dict[tuple[str, str], int]:
    here, there = boxes(2, 16)
    made = star(here, "box0/nvswitch", 1250) | star(there, "box1/nvswitch", 1250)
    for a, b in ((here, there), (there, here)):
        made |= {(a[i], b[i - 1]): 125 for i in range(1, 16, 2)}
    return made


def ndv2(count: int) -> dict[tuple[str, str], int]:
    made: dict[tuple[str, str], int] = {}
    for b in range(count):
        made |= cables(DGX1V, "gpu", f"box{b}/")
    if count == 2:
        return made | {("box0/gpu0", "box1/gpu1"): 125, ("box1/gpu0", "box0/gpu1"): 125}
    for b in range(count):
        made |= {(f"box{b}/gpu0", "network"): 125, ("network", f"box{b}/gpu1"): 125}
    return made


def mi250(count: int) -> dict[tuple[str, str], int]:
    made: dict[tuple[str, str], int] = {}
    for b in range(count):
        made |= cables(MI250, "die", f"box{b}/")
        made |= star([f"box{b}/die{i}" for i in range(16)], "network", 160)
    return made


PUBLISHED = {
    "published_dgx1v": cables(DGX1V, "gpu"),
    "published_dgx_a100_x1": star([f"gpu{i}" for i in range(8)], "nvswitch", 3000),
    "published_dgx_a100_x2": a100(2),
    "published_dgx_a100_x4": a100(4),
    "published_mi250_x1": cables(MI250, "die"),
    "published_mi250_x2": mi250(2),
    "published_dgx2_x2": dgx2(),
    "published_ndv2_x2": ndv2(2),
    "published_ndv2_x4": ndv2(4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_graphs(name: str) -> None:
    assert rates(catalogue.named(name)) == PUBLISHED[name]


def test_all_published_graphs_are_tested() -> None:
    assert {name for name in catalogue.names() if name.startswith("published_")} == set(PUBLISHED)
