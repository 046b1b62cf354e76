"""MSCCL XML read back: our own exports, steps that only others write, and files that are wrong."""

from __future__ import annotations

import pytest

from pycomm.errors import UsageError
from pycomm.export import export, read
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import names, plan, planner
from pycomm.types import CollectiveKind
from pycomm.verify import metrics, verify

ON_GRAPHS = ("tree_packing", "free_root", "flow_alltoall")
"""Planners that need a topology; they have tests of their own."""
KINDS = [
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.ALLTOALL,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
    CollectiveKind.GATHER,
    CollectiveKind.SCATTER,
]


@pytest.mark.parametrize("nranks", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("name", [name for name in names() if name not in ON_GRAPHS])
def test_what_we_write_we_read_and_it_is_right(name, nranks):
    asked = 0
    for kind in KINDS:
        for in_place in (False, True):
            request = PlanRequest(kind, nranks, 0 if kind.is_rooted else -1, in_place)
            if planner(name).rejects(request) or (in_place and kind is CollectiveKind.ALLTOALL):
                continue
            schedule = plan(name, request)
            got = read(export(schedule, "x.xml"), "x.xml")
            assert verify(got) == [], (kind, in_place)
            assert (got.kind, got.nranks, got.pieces, got.in_place) == (
                kind,
                nranks,
                schedule.pieces,
                in_place,
            )
            assert metrics(got).total == metrics(schedule).total
            asked += 1
    assert asked


# The second rank combines what comes with its own and passes the sum straight on: rrs, then rcs back.
PASSING_ON = """<algo name="chain" nchannels="1" ngpus="3" coll="allreduce" inplace="1">
  <gpu id="0" i_chunks="1" o_chunks="1" s_chunks="0">
    <tb id="0" send="1" recv="1" chan="0">
      <step s="0" type="s" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="1"/>
      <step s="1" type="r" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="1"/>
    </tb>
  </gpu>
  <gpu id="1" i_chunks="1" o_chunks="1" s_chunks="0">
    <tb id="0" send="2" recv="0" chan="0">
      <step s="0" type="rrs" srcbuf="i" srcoff="0" dstbuf="i" dstoff="-1" cnt="1"/>
    </tb>
    <tb id="1" send="0" recv="2" chan="0">
      <step s="0" type="nop" srcbuf="i" srcoff="-1" dstbuf="i" dstoff="-1" cnt="0" depid="0" deps="0"/>
      <step s="1" type="rcs" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="1"/>
    </tb>
  </gpu>
  <gpu id="2" i_chunks="1" o_chunks="1" s_chunks="0">
    <tb id="0" send="1" recv="1" chan="0">
      <step s="0" type="rrcs" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="1"/>
    </tb>
  </gpu>
</algo>
"""


def text(xml: str):
    return read(xml.encode(), "chain.xml")


def test_steps_that_pass_on():
    schedule = text(PASSING_ON)
    assert verify(schedule) == []
    assert (metrics(schedule).steps, metrics(schedule).total) == (4, 4)


def test_scratch_that_is_written_together_and_read_apart():
    steps = """<algo name="apart" ngpus="2" coll="allgather">
  <gpu id="0" i_chunks="2" o_chunks="4" s_chunks="2">
    <tb id="0" send="1" recv="1" chan="0">
      <step s="0" type="s" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="2"/>
      <step s="1" type="r" srcbuf="i" srcoff="0" dstbuf="s" dstoff="0" cnt="2"/>
      <step s="2" type="cpy" srcbuf="s" srcoff="1" dstbuf="o" dstoff="3" cnt="1"/>
      <step s="3" type="cpy" srcbuf="s" srcoff="0" dstbuf="o" dstoff="2" cnt="1"/>
      <step s="4" type="cpy" srcbuf="i" srcoff="0" dstbuf="s" dstoff="1" cnt="1"/>
      <step s="5" type="cpy" srcbuf="i" srcoff="1" dstbuf="s" dstoff="2" cnt="1"/>
      <step s="6" type="cpy" srcbuf="s" srcoff="1" dstbuf="o" dstoff="0" cnt="2"/>
    </tb>
  </gpu>
  <gpu id="1" i_chunks="2" o_chunks="4" s_chunks="0">
    <tb id="0" send="0" recv="0" chan="0">
      <step s="0" type="s" srcbuf="i" srcoff="0" dstbuf="i" dstoff="0" cnt="2"/>
      <step s="1" type="r" srcbuf="i" srcoff="0" dstbuf="o" dstoff="0" cnt="2"/>
      <step s="2" type="cpy" srcbuf="i" srcoff="0" dstbuf="o" dstoff="2" cnt="2"/>
    </tb>
  </gpu>
</algo>"""
    assert verify(text(steps)) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("</algo>", "", "cut short"),
        ("<algo", "<!DOCTYPE algo [<!ENTITY a 'b'>]><algo", "refused"),
        ("<algo", "<system", "cut short"),
        ('coll="allreduce"', 'coll="allsum"', "allsum"),
        ('ngpus="3"', 'ngpus="4"', "3 different"),
        ('ngpus="3"', 'ngpus="0"', "ngpus"),
        ('type="rrs"', 'type="rrx"', "rrx"),
        ('send="2"', 'send="-1"', "send=-1"),
        ('cnt="1"', 'cnt="x"', "cnt='x'"),
        ('type="nop" srcbuf="i"', 'type="s" srcbuf="i"', "cnt"),
        ('depid="0" deps="0"', 'depid="7" deps="0"', "block 7"),
        ('depid="0" deps="0"', 'depid="1" deps="1"', "never gets past"),
        ('type="rrs" srcbuf="i" srcoff="0"', 'type="rrs" srcbuf="i" srcoff="5"', "no chunks 5"),
        ('type="rrs" srcbuf="i"', 'type="rrs" srcbuf="q"', "'q'"),
        ('type="rrs" srcbuf="i"', 'type="rrs" srcbuf="s"', "scratch"),
        ('i_chunks="1" o_chunks="1"', "", "i_chunks"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(old, new, says):
    assert old in PASSING_ON
    with pytest.raises(UsageError) as caught:
        text(PASSING_ON.replace(old, new, 1))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("MSCCL XML")


def test_what_reads_well_but_is_wrong_is_found_by_the_verifier():
    assert verify(
        text(
            PASSING_ON.replace('type="rrs"', 'type="rcs"').replace(
                'dstoff="-1" cnt="1"', 'dstoff="0" cnt="1"'
            )
        )
    )
