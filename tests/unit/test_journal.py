"""A communicator's journal: what it notes, when it writes its dump, and that shortcuts stay untouched."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

import pycomm
from pycomm.errors import Aborted, DeadlineExceeded, UsageError
from pycomm.events import Phase, configure_logging, read_dump
from pycomm.testing import run_threads
from pycomm.types import CollectiveKind

pytestmark = pytest.mark.timeout(30)


def phases(comm):
    return [(e.seq, e.kind.label, e.phase.label) for e in comm._journal.recorder.events()]


def test_calls_are_noted_from_start_to_end():
    with pycomm.init("reference") as comm:
        comm.allreduce(np.ones(3))
        with comm.batch():
            work = comm.broadcast(np.ones(2, np.float32))
        work.wait()
        work.wait()
        assert phases(comm) == [
            (0, "allreduce", "started"),
            (0, "allreduce", "done"),
            (1, "broadcast", "queued"),
            (1, "broadcast", "started"),
            (1, "broadcast", "done"),
        ]
        first, *_, last = comm._journal.recorder.events()
        assert (first.comm, first.nbytes, last.nbytes, last.peer) == ("world", 24, 8, -1)


def test_impatience_is_not_the_end_of_an_operation():
    def body(comm):
        if comm.rank == 0:
            work = comm.recv(np.empty(1), 1, async_op=True)
            ready.wait(10)
            assert not work.done()
            assert phases(comm) == [(0, "recv", "started")]
            comm.send(np.ones(1), 1)
            assert work.wait(10) == 1
            return phases(comm)[-1]
        ready.set()
        comm.recv(np.empty(1), 0)
        return comm.send(np.ones(1), 0)

    ready = threading.Event()
    assert run_threads(2, body)[0] == (0, "recv", "done")


def test_a_failure_is_dumped_with_its_reason(tmp_path, monkeypatch):
    folder = tmp_path / "events" / "here"
    monkeypatch.setenv("PYCOMM_EVENTS", str(folder))

    def body(comm):
        comm.barrier()
        if comm.rank == 0:
            with pytest.raises(DeadlineExceeded):
                comm.allreduce(np.ones(4), timeout_s=0.2)
            gone.set()
        else:
            gone.wait(10)

    gone = threading.Event()
    run_threads(2, body)
    (path,) = folder.iterdir()
    assert path.name.startswith("world-rank0-")
    dump = read_dump(path)
    assert dump.reason.startswith("DeadlineExceeded: allreduce")
    assert [(e.kind, e.phase) for e in dump.events] == [
        (CollectiveKind.BARRIER, Phase.STARTED),
        (CollectiveKind.BARRIER, Phase.DONE),
        (CollectiveKind.ALLREDUCE, Phase.STARTED),
        (CollectiveKind.ALLREDUCE, Phase.FAILED),
    ]


def test_an_abort_is_dumped_on_every_rank(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCOMM_EVENTS", str(tmp_path))

    def body(comm):
        comm.barrier()
        if comm.rank == 0:
            comm.abort("enough")
        else:
            with pytest.raises(Aborted):
                comm.recv(np.ones(4), 0)
        return comm.rank

    run_threads(2, body)
    reasons = {p.name.split("-")[1]: read_dump(p) for p in tmp_path.iterdir()}
    assert reasons["rank0"].reason == "aborted by this rank: enough"
    assert reasons["rank0"].events[-1].phase is Phase.ABORTED
    assert "enough" in reasons["rank1"].reason


def test_two_jobs_of_one_process_have_a_dump_each(tmp_path, monkeypatch):
    monkeypatch.setenv("PYCOMM_EVENTS", str(tmp_path))
    for reason in ("one", "two"):
        comm = pycomm.init("reference")
        comm.abort(reason)
        comm.abort(reason)
        comm.close()
    assert sorted(read_dump(p).reason[-3:] for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_folder_that_cannot_be_written_hides_no_failure(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PYCOMM_EVENTS", str(tmp_path / "file"))
    with pycomm.init("reference") as comm, caplog.at_level(logging.WARNING, "pycomm"):
        comm.abort("enough")
    assert "could not be written" in caplog.text


def test_the_shortcut_leaves_no_trace_unless_a_dump_is_asked_for(tmp_path, monkeypatch):
    def noted():
        with pycomm.init("native") as comm:
            comm.allreduce(np.ones(4))
            return len(phases(comm))

    assert noted() == 0
    monkeypatch.setenv("PYCOMM_EVENTS", str(tmp_path))
    assert noted() == 2


@pytest.fixture
def own_logging():
    yield
    configure_logging("")


@pytest.mark.usefixtures("own_logging")
def test_init_sets_logging_up_with_the_rank(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYCOMM_LOG", "events=info")
    monkeypatch.setenv("PYCOMM_EVENTS", str(tmp_path))
    with pycomm.init("reference") as comm:
        comm.abort("enough")
    assert "INFO    rank=0 pycomm.events: the events of group world are in" in capfd.readouterr().err


def test_init_refuses_a_log_level_that_does_not_exist(monkeypatch):
    monkeypatch.setenv("PYCOMM_LOG", "loud")
    with pytest.raises(UsageError, match="PYCOMM_LOG"):
        pycomm.init("reference")
