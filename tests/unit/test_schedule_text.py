"""The text form: what it says, what it tolerates, and where it complains."""

from __future__ import annotations

import numpy as np
import pytest

from pycomm.errors import UsageError
from pycomm.schedule import OpKind
from pycomm.schedule.text import format_op, format_schedule, parse_schedule
from pycomm.types import CollectiveKind

HEAD = "schedule 1\nname x\ncollective allreduce\nranks 2\npieces 1\ncapacity 1\n"
GOOD = HEAD + "\nrank 0\n  send input[0] to 1\nrank 1\n  recv output[0] from 0\n"

SENTENCES = [
    ([OpKind.COPY, -1, -1, 0, 0, 1, 2, 4], "copy input[0:4] to output[2:6]"),
    ([OpKind.SEND, 3, 0, 1, 7, -1, -1, 1], "send output[7] to 3"),
    ([OpKind.SEND, 3, 2, 1, 7, -1, -1, 1], "send output[7] to 3 on 2"),
    ([OpKind.SEND, 3, 0, -1, -1, -1, -1, 0], "send nothing to 3"),
    ([OpKind.RECV, 3, 0, -1, -1, 2, 0, 2], "recv scratch[0:2] from 3"),
    ([OpKind.RECV, 3, 1, -1, -1, -1, -1, 0], "recv nothing from 3 on 1"),
    ([OpKind.REDUCE, -1, -1, 2, 0, 1, 0, 1], "reduce scratch[0] into output[0]"),
    ([OpKind.RECV_REDUCE, 3, 0, 1, 0, 1, 0, 1], "recv_reduce output[0] from 3"),
    ([OpKind.RECV_REDUCE, 3, 0, 0, 0, 1, 0, 1], "recv_reduce output[0] with input[0] from 3"),
    ([OpKind.RECV_REDUCE, 3, 0, -1, -1, -1, -1, 0], "recv_reduce nothing from 3"),
    ([OpKind.COPY, 0, -1, 0, 0, 1, 2, 4], "row 0 0 -1 0 0 1 2 4"),
    ([9, -1, -1, 0, 0, 1, 2, 4], "row 9 -1 -1 0 0 1 2 4"),
    ([OpKind.SEND, 3, 0, 1, 7, -1, -1, 0], "row 1 3 0 1 7 -1 -1 0"),
    ([OpKind.RECV, 3, 0, 0, 0, 2, 0, 2], "row 2 3 0 0 0 2 0 2"),
    ([OpKind.COPY, -1, -1, 0, 2**31 - 1, 1, 2, 4], f"row 0 -1 -1 0 {2**31 - 1} 1 2 4"),
]


@pytest.mark.parametrize(("row", "sentence"), SENTENCES, ids=[sentence for _, sentence in SENTENCES])
def test_every_row_has_a_sentence_and_back(row, sentence):
    assert format_op(row) == sentence
    again = parse_schedule(f"{HEAD}rank 0\n{sentence}\nrank 1\n")
    assert again.program(0).tolist() == [row]


def test_a_schedule_reads_as_documented():
    schedule = parse_schedule(GOOD)
    assert (schedule.name, schedule.kind, schedule.nranks) == ("x", CollectiveKind.ALLREDUCE, 2)
    assert (schedule.root, schedule.in_place, schedule.channels, schedule.capacity) == (-1, False, 1, 1)
    assert schedule.ops.dtype == np.int32
    assert format_schedule(schedule) == GOOD


def test_comments_blank_lines_and_carriage_returns_are_nothing():
    loose = "# a plan\r\n" + GOOD.replace("\n", "  # why\r\n\r\n") + "\n#"
    assert parse_schedule(loose) == parse_schedule(GOOD)


@pytest.mark.parametrize("name", ["ring", "two words", 'q"uote', "#5", "", "line\nbreak", "größe"])
def test_any_name_survives(name):
    schedule = parse_schedule(GOOD)
    object.__setattr__(schedule, "name", name)
    assert parse_schedule(format_schedule(schedule)).name == name


def test_scratch_slots_are_written_as_runs():
    text = GOOD.replace("rank 0", "rank 0 scratch 0:3 7 7:9 5")
    schedule = parse_schedule(text)
    assert schedule.scratch_slots(0).tolist() == [0, 1, 2, 7, 7, 8, 5]
    assert schedule.scratch_slots(1).tolist() == []
    assert format_schedule(schedule) == text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "schedule 1",
            "schedule 2",
            "line 1: expected the version of the text form, a number from 1 to 1, found '2'",
        ),
        ("schedule 1", "plan 1", "line 1: expected 'schedule', found 'plan'"),
        ("name x", "name", "line 2: expected a name, found the end of the line"),
        ("name x", 'name "x', "line 2: expected a name in quotes"),
        ("name x", 'name "x" y', "line 2: expected the end of the line, found 'y'"),
        ("name x", "title x", "line 2: expected one of name, collective,"),
        ("name x\n", "", "lacks name"),
        (
            "collective allreduce",
            "collective Allreduce",
            "line 3: expected a collective such as allreduce, found",
        ),
        ("ranks 2", "ranks 0", "line 4: expected the number of ranks, a number from 1"),
        ("ranks 2", "ranks 2 2", "line 4: expected the end of the line, found '2'"),
        ("pieces 1", "ranks 1", "line 5: expected ranks once only"),
        ("capacity 1", "in_place maybe", "line 6: expected yes or no, found 'maybe'"),
        ("rank 1", "rank 2", "line 10: expected the rank, a number from 1 to 1, found '2'"),
        ("rank 1\n", "rank 1\nrank 2\n", "line 11: expected nothing after rank 1, the last of 2"),
        ("rank 1\n  recv output[0] from 0\n", "", "ends after rank 0; expected the programs of 2 ranks"),
        ("rank 0", "rank 0 scrap 1", "line 8: expected 'scratch', found 'scrap'"),
        ("rank 0", "rank 0 scratch 3:1", "line 8: expected a chunk or a run"),
        ("rank 0", "rank 0 scratch 0:99999999", "line 8: expected a chunk or a run of at most"),
        ("send input[0]", "post input[0]", "line 9: expected one of copy, send, recv, reduce, recv_reduce"),
        ("send input[0]", "send input[0:0]", "line 9: expected a span that ends after it starts"),
        ("send input[0]", "send memory[0]", "line 9: expected a span such as"),
        ("send input[0] to 1", "send input[0] from 1", "line 9: expected 'to', found 'from'"),
        ("send input[0] to 1", "send input[0] to", "line 9: expected the peer's rank, a number from 0"),
        ("send input[0] to 1", "send input[0] to 1 on x", "line 9: expected the channel"),
        (
            "send input[0] to 1",
            "send input[0] to 1 on 0 now",
            "line 9: expected the end of the line, found 'now'",
        ),
        (
            "send input[0] to 1",
            "copy input[0] to output[0:2]",
            "line 9: expected a span of 1 chunks as on the left",
        ),
        ("send input[0] to 1", "copy nothing to output[0]", "line 9: expected a span such as"),
        ("send input[0] to 1", "row 1 2 3", "line 9: expected a number of the row"),
        ("send input[0] to 1", "row 1 2 3 4 5 6 7 99999999999", "line 9: expected a number of the row"),
    ],
)
def test_what_does_not_fit_is_refused_with_line_and_expectation(old, new, message):
    assert old in GOOD
    with pytest.raises(UsageError) as caught:
        parse_schedule(GOOD.replace(old, new, 1))
    assert message in str(caught.value)
