"""What the tuner says it does, on networks where one can see what is right."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from pycomm.planner.base import PlanRequest
from pycomm.topology.files import loads
from pycomm.topology.model import Topology
from pycomm.tuner import choose, crossovers, estimates, explain
from pycomm.tuner.pricing import links_of
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(100)
SLOW_RANK = """
version = 1
[[generate]]
kind = "star"
count = 8
rate = "400 Gbit/s"
[[override]]
from = "device5"
to = "*"
scale = 0.5
both = true
"""


@pytest.fixture(scope="module")
def slow_rank() -> Topology:
    return loads(SLOW_RANK)


def request(topology: Topology, kind: Kind = Kind.ALLREDUCE) -> PlanRequest:
    return PlanRequest(kind, 8, topology=topology, hosts=topology.host_numbers())


def test_one_slow_rank_is_a_leaf_for_large_messages(slow_rank: Topology) -> None:
    found = explain(request(slow_rank), 1 << 28)
    assert found.chosen.startswith("free_root")
    assert found.limit is not None
    assert found.limit.exact == "25000000000"
    assert found.limit.limited_by.count("device5") == 1
    assert found.limit.seconds <= found.seconds < 1.3 * found.limit.seconds
    ring = next(e for e in found.candidates if e.planner == "ring")
    assert ring.seconds > 1.3 * found.seconds


def test_an_explanation_says_all_of_it(slow_rank: Topology) -> None:
    found = explain(request(slow_rank), 1 << 28)
    text = found.text()
    for part in (
        "allreduce of 256 MiB on 8 ranks",
        "25 GB/s",
        found.chosen,
        found.runner_up.partition(",")[0],
    ):
        assert part in text
    assert text.count("\n") == len(found.candidates) + 2
    facts = msgspec.json.decode(msgspec.json.encode(found.facts()))
    assert facts["chosen"] == found.chosen
    assert facts["limit"]["exact"] == "25000000000"
    assert {c["planner"] for c in facts["candidates"]} == {e.planner for e in found.candidates}


def test_asked_for_and_own_are_told_apart(slow_rank: Topology) -> None:
    forced = explain(request(slow_rank), 1 << 20, algorithm="direct")
    assert (forced.source, forced.chosen) == ("asked for", "direct")
    own = explain(request(slow_rank), 1 << 20, algorithm="own")
    assert (own.source, own.chosen) == ("backend", "own")
    assert explain(PlanRequest(Kind.ALLREDUCE, 4), 8).source == "closed form"


@pytest.mark.parametrize("kind", [Kind.ALLREDUCE, Kind.ALLGATHER, Kind.ALLTOALL])
@pytest.mark.parametrize("nbytes", [0, 5000, 1 << 20])
def test_the_quick_choice_is_the_thorough_one(slow_rank: Topology, kind: Kind, nbytes: int) -> None:
    asked = request(slow_rank, kind)
    links = links_of(asked)
    quick = estimates(asked, nbytes, links, only_best=True)
    thorough = estimates(asked, nbytes, links)
    assert quick[0].seconds <= thorough[0].seconds * 1.02
    assert not quick[0].is_least
    assert not any(e.is_least for e in thorough)
    assert choose(asked, nbytes).planner == quick[0].planner


def test_crossovers_go_from_few_steps_to_little_data(slow_rank: Topology) -> None:
    rows = crossovers(request(slow_rank), low=1 << 10, high=1 << 26)
    sizes = [row.nbytes for row in rows]
    assert sizes == sorted(set(sizes))
    assert sizes[0] == 1 << 10
    assert all(a.chosen != b.chosen for a, b in itertools.pairwise(rows))
    assert rows[-1].chosen.startswith("free_root")
    assert not rows[0].chosen.startswith(("ring", "free_root"))
    for row in rows[1:]:
        assert explain(request(slow_rank), row.nbytes).chosen == row.chosen


def test_a_placed_ring_beats_one_in_the_order_of_ranks() -> None:
    """Ranks of two racks in turns: only a ring that goes through one rack first crosses the trunk once."""
    text = """
version = 1
[[node]]
name = "leaf0 leaf1"
kind = "switch"
[[node]]
name = "d[0-7]"
kind = "device"
[[link]]
from = "d[0,2,4,6]"
to = "leaf0"
bandwidth = "10 GB/s"
both = true
[[link]]
from = "d[1,3,5,7]"
to = "leaf1"
bandwidth = "10 GB/s"
both = true
[[link]]
from = "leaf0"
to = "leaf1"
bandwidth = "10 GB/s"
both = true
"""
    topology = loads(text)
    found = {e.planner: e for e in explain(request(topology, Kind.ALLGATHER), 1 << 26).candidates}
    assert found["ring"].order
    assert found["ring"].seconds == pytest.approx((1 << 26) * 7 / 8 / 10e9, rel=0.1)
