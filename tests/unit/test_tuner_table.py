"""Measured tables: read, written, merged, refused with the line and the key of what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pycomm.errors import UsageError
from pycomm.planner.base import PlanRequest
from pycomm.tuner import choose, explain
from pycomm.tuner.table import NO_END, Entry, Key, Table, key_of, load_table, merged, read_table, write_table
from pycomm.types import CollectiveKind as Kind

pytestmark = pytest.mark.timeout(60)
HEAD = 'format = "pycomm-tuning"\nversion = 1\n'
ENTRY = '[[entry]]\ncollective = "allreduce"\nranks = 4\nalgorithm = "ring"\n'
KEY = Key(4, (2, 2), "0123456789abcdef")
ROWS = (
    Entry(KEY, Kind.ALLGATHER, 0, 1023, "bruck"),
    Entry(KEY, Kind.ALLGATHER, 1024, NO_END, "ring", 4, (0, 2, 1, 3), 0.0125),
    Entry(Key(4), Kind.ALLREDUCE, 0, NO_END, "own"),
)


def test_what_is_written_is_read_again() -> None:
    table = Table(ROWS)
    text = write_table(table)
    assert set(read_table(text).entries) == set(ROWS)
    assert write_table(read_table(text)) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("x = ", "t.toml:1: this is no valid TOML"),
        ("", "t.toml:1: format: a tuning table begins with"),
        ('format = "pycomm-tuning"\n\nversion = 2\n', "t.toml:3: version: only version 1"),
        (HEAD + "other = 1\n", "t.toml:3: other: there is no such key"),
        (HEAD + "entry = 3\n", "t.toml:3: entry: write entries as"),
        (HEAD + ENTRY + 'size = "1K"\n', "t.toml:7: size: there is no such key; an entry has collective"),
        (
            HEAD + ENTRY.replace("allreduce", "allred"),
            "t.toml:4: collective: there is no collective 'allred'",
        ),
        (HEAD + ENTRY.replace('"ring"', '"rnig"'), "t.toml:6: algorithm: there is no algorithm 'rnig'"),
        (HEAD + ENTRY.replace("4", "0"), "t.toml:5: ranks: 0 is not a count"),
        (HEAD + ENTRY.replace("ranks = 4\n", ""), "t.toml:3: entry: the entry lacks ranks"),
        (HEAD + ENTRY + "from = 1024\n", "t.toml:7: from: 1024 is not a text"),
        (HEAD + ENTRY + 'from = "2 K"\nto = "1 K"\n', "t.toml:7: from: 2 KiB is more than 1 KiB"),
        (HEAD + ENTRY + "hosts = [2, 3]\n", "t.toml:7: hosts: the hosts have 5 ranks together, not 4"),
        (HEAD + ENTRY + "order = [0, 1, 1, 2]\n", "t.toml:7: order: the order must name each"),
        (HEAD + ENTRY + 'network = "abc"\n', "t.toml:7: network: 'abc' is no digest"),
        (HEAD + ENTRY + 'time = "5"\n', "t.toml:7: time: '5' has no unit"),
        (HEAD + ENTRY + 'to = "1 K"\n' + ENTRY, "t.toml:8: from: this entry overlaps entry 1 of the file"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_key(text: str, wanted: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_table(text, "t.toml")
    message = str(caught.value)
    assert message.startswith(wanted)
    assert "\n" not in message


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_table(tmp_path / "none.toml")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not a text file"):
        load_table(tmp_path / "binary")


def test_the_more_an_entry_says_about_its_place_the_more_it_counts() -> None:
    here = Entry(KEY, Kind.ALLREDUCE, 0, NO_END, "direct")
    shape = Entry(Key(4, (2, 2)), Kind.ALLREDUCE, 0, NO_END, "double_tree")
    table = Table((ROWS[2], shape, here))
    assert table.find(KEY, Kind.ALLREDUCE, 5) == here
    assert table.find(replace(KEY, network="f" * 16), Kind.ALLREDUCE, 5) == shape
    assert table.find(Key(4, (1, 3)), Kind.ALLREDUCE, 5) == ROWS[2]
    assert table.find(Key(8), Kind.ALLREDUCE, 5) is None
    assert table.find(KEY, Kind.ALLGATHER, 5) is None


def test_a_later_table_cuts_an_earlier_one() -> None:
    old = Table((Entry(KEY, Kind.ALLREDUCE, 0, NO_END, "ring"),))
    new = Table((Entry(KEY, Kind.ALLREDUCE, 100, 200, "direct"),))
    both = merged([old, new]).entries
    assert [(e.low, e.high, e.algorithm) for e in both] == [
        (0, 99, "ring"),
        (100, 200, "direct"),
        (201, NO_END, "ring"),
    ]
    assert read_table(write_table(Table(both))) == Table(both)
    elsewhere = Table((Entry(Key(5), Kind.ALLREDUCE, 0, NO_END, "direct"),))
    assert len(merged([old, elsewhere]).entries) == 2


def test_a_table_overrides_prediction() -> None:
    request = PlanRequest(Kind.ALLREDUCE, 5)
    predicted = choose(request, 1 << 20).planner
    other = next(name for name in ("recursive_doubling", "ring") if name != predicted)
    table = Table((Entry(Key(5), Kind.ALLREDUCE, 1 << 10, NO_END, other, seconds=0.5),))
    assert choose(request, 1 << 20, table=table).planner == other
    assert choose(request, 8, table=table).planner == choose(request, 8).planner
    found = explain(request, 1 << 20, table=table)
    assert (found.source, found.chosen) == ("measured", other)
    assert "which took 500 ms" in found.why


def test_the_places_of_ranks_are_part_of_the_key() -> None:
    from pycomm.topology.generators import star

    topology = star(4, rate="1 GB/s")
    first = PlanRequest(Kind.ALLREDUCE, 2, topology=topology, devices=topology.devices[:2])
    assert key_of(first) == key_of(replace(first, kind=Kind.BROADCAST, root=0))
    assert key_of(first) != key_of(replace(first, devices=topology.devices[2:]))
    assert key_of(PlanRequest(Kind.ALLREDUCE, 3, hosts=(0, 1, 0))) == Key(3, (2, 1))
