"""Exports: golden files for a small schedule with every feature, the unit-time run, pictures, suffixes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from pycomm.errors import ScheduleError, UsageError
from pycomm.export import EXPORTERS, export, read
from pycomm.export.timeline import unit_timeline
from pycomm.planner.base import PlanRequest
from pycomm.planner.registry import names, plan, planner
from pycomm.schedule.text import parse_schedule
from pycomm.types import CollectiveKind
from pycomm.verify import metrics

ON_GRAPHS = ("tree_packing", "free_root", "flow_alltoall")
"""Planners that need a topology; they have tests of their own."""
GOLDEN = Path(__file__).parent.parent / "golden"
HEAD = "schedule 1\nname x\ncollective allreduce\nranks 2\npieces 1\n"


@pytest.fixture
def triangle():
    return read((GOLDEN / "triangle.txt").read_bytes(), "triangle.txt")


@pytest.mark.parametrize("suffix", [".txt", ".json", ".xml", ".dot", ".trace.json"])
def test_golden(suffix, triangle, golden):
    golden(f"triangle{suffix}", export(triangle, f"x{suffix}"))


@pytest.mark.parametrize("suffix", [".txt", ".json", ".msgpack"])
def test_own_forms_read_back(suffix, triangle):
    assert read(export(triangle, f"a.b/x{suffix}"), f"x{suffix}") == triangle


def test_exporting_changes_nothing(triangle):
    before = triangle.digest()
    for suffix in EXPORTERS.keys() - {".png", ".pdf"}:
        export(triangle, f"x{suffix}")
        assert (type(triangle)(**{**vars(triangle), "_digest": []})).digest() == before


def test_time_passes_with_messages_only(triangle):
    timeline = unit_timeline(triangle)
    assert timeline.steps == 2
    assert timeline.times == ((0, 0, 0, 2, 2, 2), (1, 1), (1, 1, 1, 1))
    assert [(m.start, m.src, m.dst, m.taken) for m in timeline.messages] == [
        (0, 0, 1, 1),
        (0, 0, 2, 1),
        (1, 1, 0, 2),
        (1, 2, 0, 2),
        (1, 2, 0, 2),
    ]


@pytest.mark.parametrize("name", [name for name in names() if name not in ON_GRAPHS])
def test_unit_time_agrees_with_the_verifier(name):
    checked = 0
    for kind in CollectiveKind:
        request = PlanRequest(kind, 5, root=4 if kind.is_rooted else -1)
        if kind not in (CollectiveKind.SEND, CollectiveKind.RECV) and planner(name).rejects(request) is None:
            schedule = plan(name, request)
            assert unit_timeline(schedule).steps == metrics(schedule).steps
            checked += 1
    assert checked


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        (
            "rank 0\n recv output[0] from 1\nrank 1\n recv output[0] from 0\n",
            "rank 0 waits in op 0 .* rank 1",
        ),
        ("rank 0\n send input[0] to 1\nrank 1\n", "rank 1 never receives a message that rank 0 sends it"),
    ],
)
def test_a_schedule_that_does_not_end_has_no_timeline(programs, message):
    with pytest.raises(ScheduleError, match=message):
        unit_timeline(parse_schedule(HEAD + programs))


def test_the_trace_is_what_trace_viewers_expect(triangle):
    trace = json.loads(export(triangle, "x.trace.json"))
    events = trace["traceEvents"]
    bars = [event for event in events if event["ph"] == "X"]
    assert len(bars) == 2 * 5
    assert {event["pid"] for event in bars} == {0, 1, 2}
    named = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {(bar["pid"], bar["tid"]) for bar in bars} <= named
    starts = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert all(starts[number]["ts"] < ends[number]["ts"] for number in starts)


def test_the_picture_shows_ranks_steps_and_chunks(triangle):
    pytest.importorskip("matplotlib")
    svg = export(triangle, "x.svg")
    assert svg == export(triangle, "x.svg"), "the same schedule must give the same file"
    words = [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert "triangle allreduce: 3 ranks, 2 steps, out of place" in words
    assert {"0", "1-2", "+0", "+1-2"} <= set(words)
    assert export(triangle, "x.png").startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["x", "x.yaml", "x.json.gz", ".json"])
def test_unknown_suffixes_are_refused(name, triangle):
    with pytest.raises(UsageError, match="suffix"):
        export(triangle, name)


def test_what_cannot_be_read_is_refused():
    with pytest.raises(UsageError, match="cannot read"):
        read(b"", "x.svg")
    with pytest.raises(UsageError, match="not a text file"):
        read(b"\xff\xfe", "x.txt")
