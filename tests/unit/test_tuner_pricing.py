"""Times of schedules on networks, against what can be computed by hand."""

from __future__ import annotations

import pytest

from pycomm.cost import ACCELERATORS, Link, Links
from pycomm.errors import ScheduleError
from pycomm.planner import registry
from pycomm.planner.base import PlanRequest
from pycomm.schedule.builder import ScheduleBuilder, inp, out, scr
from pycomm.topology.draft import Draft
from pycomm.topology.model import Node, NodeKind, Topology
from pycomm.tuner import pricing
from pycomm.tuner.dataflow import Dataflow, dataflow
from pycomm.tuner.queues import SEGMENT_NBYTES, Way, finished_s
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(60)
FREE = Links(Link(0.0, 0.0, 1e18), Link(0.0, 0.0, 1e18), 1e18)
MB = 10**6


def star(*rates: int, vendor: str = "", latency_s: float = 0.0) -> Topology:
    draft = Draft()
    switch = draft.add(Node("switch", NodeKind.SWITCH))
    for i, rate in enumerate(rates):
        device = draft.add(Node(f"d{i}", NodeKind.DEVICE, f"h{i}", vendor))
        draft.cable(device, switch, rate, latency_s, "")
    return draft.topology("star")


def price(
    name: str, kind: Kind, topology: Topology, links: Links = FREE, pieces: int = 0, root: int = -1
) -> pricing.Priced:
    n = len(topology.devices)
    request = PlanRequest(kind, n, root, pieces=pieces, topology=topology, hosts=topology.host_numbers())
    return pricing.priced(name, request, links)


def test_dataflow_of_a_chain_with_a_combination() -> None:
    build = ScheduleBuilder(PlanRequest(Kind.REDUCE, 3, 0), "chain")
    build.send(2, 1, inp(0), when=0)
    build.recv_reduce(1, 2, inp(0), scr(build.scratch(1, 0)), when=1)
    build.send(1, 0, scr(0), when=2)
    build.recv_reduce(0, 1, inp(0), out(0), when=3)
    flow = dataflow(build.finish())
    assert list(zip(flow.src, flow.dst, flow.combines, flow.waits, strict=True)) == [
        (2, 1, False, ()),
        (1, 1, True, (0,)),
        (1, 0, False, (1,)),
        (0, 0, True, (2,)),
    ]


def test_a_message_that_never_comes_is_an_error() -> None:
    build = ScheduleBuilder(PlanRequest(Kind.BROADCAST, 2, 0), "broken")
    build.recv(1, 0, out(0))
    with pytest.raises(ScheduleError, match="rank 1 waits in op 0"):
        dataflow(build.finish())


def test_a_ring_takes_what_its_slowest_link_carries() -> None:
    for rates, slowest in (((100 * MB,) * 4, 100 * MB), ((100 * MB, 100 * MB, 100 * MB, 20 * MB), 20 * MB)):
        got = price("ring", Kind.ALLGATHER, star(*rates)).seconds(1 << 26)
        assert got == pytest.approx((1 << 26) * 3 / 4 / slowest, rel=1e-6)


def test_latency_and_overhead_count_once_a_step() -> None:
    links = Links(Link(1.0, 0.0, 1e18), Link(7.0, 0.25, 1e18), 1e18)
    assert price("ring", Kind.ALLGATHER, star(10**12, 10**12, 10**12), links).seconds(0) == 2 * (7.0 + 0.25)
    far = star(10**12, 10**12, latency_s=3.0)
    assert price("ring", Kind.ALLGATHER, far, links).seconds(0) == pytest.approx(7.25 + 2 * 3.0)


def test_a_chain_hands_on_segments() -> None:
    """Four hops of one long message take one message and three segments, not four messages."""
    nbytes = 64 * SEGMENT_NBYTES
    got = price("ring", Kind.BROADCAST, star(*[100 * MB] * 5), pieces=1, root=0).seconds(nbytes)
    assert got == pytest.approx((nbytes + 3 * SEGMENT_NBYTES) / (100 * MB), rel=0.02)


def test_messages_share_a_link() -> None:
    """All send to rank 0 at once: its link takes them one after the other."""
    got = price("direct", Kind.GATHER, star(*[100 * MB] * 5), root=0).seconds(5 * MB)
    assert got == pytest.approx(4 * MB / (100 * MB), rel=1e-6)


def test_lanes_are_served_by_turns() -> None:
    """Messages of one lane do not keep one of another waiting for all of them."""
    ends = [(0, 2)] * 5 + [(1, 3), (3, 4)]
    flow = Dataflow(
        [src for src, _ in ends], [dst for _, dst in ends], [1] * 7, [False] * 7, [()] * 6 + [(5,)]
    )

    def way(src: int, dst: int) -> Way:
        return Way(((1, 4.0),) if src == 3 else ((0, 1.0),), 0.0, 0.0, 0)

    users = [[]] * 5 + [[6], []]
    # the shared link serves a message of the first lane, one more that waited before, then the other lane's
    assert finished_s(flow, users, way, 7, 1.0, 0.0) == 3.0 + 4.0


def test_processors_combine_and_accelerators_do_not_count() -> None:
    links = Links(FREE.inside, FREE.between, 50e6)
    soft = price("direct", Kind.REDUCE, star(*[100 * MB] * 3, vendor="cpu"), links, root=0).seconds(MB)
    hard = price("direct", Kind.REDUCE, star(*[100 * MB] * 3, vendor="nvidia"), links, root=0).seconds(MB)
    assert hard == pytest.approx(0.02)
    assert soft > 0.03


def test_between_powers_of_two_it_is_interpolated() -> None:
    priced = price("double_tree", Kind.ALLREDUCE, star(*[100 * MB] * 5), ACCELERATORS)
    low, high = priced.seconds(1 << 20), priced.seconds(1 << 21)
    assert priced.seconds(3 << 19) == pytest.approx((low + high) / 2)
    assert low <= priced.seconds((1 << 20) + 1) <= high


@pytest.mark.parametrize("name", ["ring", "double_tree", "halving_doubling", "direct", "free_root"])
def test_the_busiest_link_is_a_lower_bound(name: str) -> None:
    priced = price(name, Kind.ALLREDUCE, star(100 * MB, 100 * MB, 100 * MB, 40 * MB), ACCELERATORS)
    for nbytes in (0, 1000, 1 << 20, 1 << 26):
        assert priced.least_s(nbytes) <= priced.seconds(nbytes) * (1 + 1e-9)


def test_large_schedules_are_priced_by_their_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    topology = star(*[100 * MB] * 8)
    request = PlanRequest(Kind.ALLREDUCE, 8, topology=topology, hosts=topology.host_numbers())
    machine = pricing.machine_of(topology, (), request.hosts, ACCELERATORS)
    for name in ("ring", "direct", "halving_doubling"):
        planner = registry.planner(name)
        made = planner.plan(request), planner.cost(request), machine
        exact = pricing.Priced(*made).seconds(1 << 24)
        with monkeypatch.context() as patch:
            patch.setattr(pricing, "MAX_EVENTS", 0)
            assert pricing.Priced(*made).seconds(1 << 24) == pytest.approx(exact, rel=0.05)


def test_unequal_ways_share_by_capacity() -> None:
    """Two switches between two devices, one twice as fast: together they are three times the slower one."""
    draft = Draft()
    devices = [draft.add(Node(f"d{i}", NodeKind.DEVICE, f"h{i}")) for i in range(2)]
    for rate in (10 * MB, 20 * MB):
        switch = draft.add(Node(f"s{rate}", NodeKind.SWITCH))
        for device in devices:
            draft.cable(device, switch, rate, 0.0, "")
    got = price("ring", Kind.BROADCAST, draft.topology("two"), pieces=1, root=0).seconds(30 * MB)
    assert got == pytest.approx(1.0, rel=1e-6)


def test_links_of_requests() -> None:
    assert pricing.links_of(PlanRequest(Kind.ALLREDUCE, 2)) == Links()
    assert pricing.links_of(PlanRequest(Kind.ALLREDUCE, 2, topology=star(MB, MB))) == ACCELERATORS
    assert pricing.links_of(PlanRequest(Kind.ALLREDUCE, 2, topology=star(MB, MB, vendor="cpu"))) == Links()
