"""Events: the recorder keeps the last ones from any thread, dumps read back, logging can be set up twice."""

from __future__ import annotations

import logging
import threading

import pytest

from pycomm.errors import UsageError
from pycomm.events import CAPACITY, Phase, Recorder, configure_logging, event, logger, read_dump, write_dump
from pycomm.types import CollectiveKind


def make(seq: int, rank: int = 0):
    return event(rank, "world", seq, CollectiveKind.ALLREDUCE, Phase.SENT, peer=1, channel=0, nbytes=8)


def test_the_last_records_are_kept_in_order():
    recorder = Recorder()
    for seq in range(CAPACITY + 10):
        recorder.record(make(seq))
    assert [record.seq for record in recorder.events()] == list(range(10, CAPACITY + 10))


def test_threads_lose_nothing():
    recorder = Recorder(capacity=4000)

    def run(rank: int) -> None:
        for seq in range(1000):
            recorder.record(make(seq, rank))

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    records = recorder.events()
    assert len(records) == 4000
    for rank in range(4):
        assert [record.seq for record in records if record.rank == rank] == list(range(1000))


def test_a_dump_reads_back(tmp_path):
    recorder = Recorder()
    for seq in range(3):
        recorder.record(make(seq))
    recorder.dump(tmp_path / "dump.jsonl", "peer 1 lost")
    dump = read_dump(tmp_path / "dump.jsonl")
    assert dump.reason == "peer 1 lost"
    assert dump.events == recorder.events()
    assert all(isinstance(record.kind, CollectiveKind) for record in dump.events)


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        (1, b"pycomm-events", b"something"),
        (1, b'"format_version":1', b'"format_version":2'),
        (1, b'"reason"', b'"because"'),
        (3, b"allreduce", b"allreduces"),
        (3, b'"peer":1', b'"peer":"one"'),
        (3, b'"peer"', b'"pear"'),
        (3, b"{", b""),
        (3, b"world", b"w\xffrld"),
    ],
)
def test_a_damaged_dump_is_refused_with_its_line(tmp_path, line, old, new):
    path = tmp_path / "dump.jsonl"
    write_dump(path, [make(0), make(1)])
    lines = path.read_bytes().splitlines()
    assert old in lines[line - 1]
    lines[line - 1] = lines[line - 1].replace(old, new, 1)
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(UsageError, match=f"line {line}|version"):
        read_dump(path)


def test_no_room_is_refused():
    with pytest.raises(UsageError):
        Recorder(capacity=0)


@pytest.fixture
def _logging_restored():
    yield
    configure_logging("")


@pytest.mark.usefixtures("_logging_restored")
def test_log_levels_per_part(capsys):
    configure_logging("warning,planner=debug", rank=3)
    configure_logging("warning,planner=debug", rank=3)
    logger("planner").debug("chosen name=ring")
    logger("store").info("hidden")
    logger("store").warning("slow")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("rank=3" in line for line in lines)
    assert lines[0].endswith("pycomm.planner: chosen name=ring")
    assert lines[1].endswith("pycomm.store: slow")
    configure_logging("")
    assert logging.getLogger("pycomm.planner").level == logging.NOTSET
    logger("store").warning("silent again")
    assert "silent" not in capsys.readouterr().err


def test_an_unknown_level_is_refused():
    with pytest.raises(UsageError, match="planner=loud"):
        configure_logging("info,planner=loud")
