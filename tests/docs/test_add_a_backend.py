"""The worked example of docs/add-a-backend.md, installed as a package: conformance suite and failures."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pycomm.backends import registry
from pycomm.backends.base import GroupConfig
from pycomm.errors import Aborted, DeadlineExceeded, PeerLost, ProtocolError, UsageError
from pycomm.store import MemoryStore
from pycomm.testing import run_threads

pytestmark = pytest.mark.timeout(300)
SUITE = [sys.executable, "-m", "pycomm.testing.conformance", "--quick"]
PAGE = Path(__file__).parents[2] / "docs" / "add-a-backend.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the page's package into a folder: its module, and the metadata of an installer."""
    folder = tmp_path_factory.mktemp("site")
    python = blocks("python")
    assert len(python) == 3
    (folder / "socketwire.py").write_text("from __future__ import annotations\n" + "\n\n".join(python))
    (toml,) = blocks("toml")
    group, entry = re.fullmatch(r'\[project\.entry-points\."(.*)"\]\n(.*)\n', toml).groups()
    metadata = folder / "socketwire-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: socketwire\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{entry.replace(chr(34), '')}\n")
    return folder


@pytest.fixture
def module(installed: Path, monkeypatch: pytest.MonkeyPatch):
    """Load it into this process."""
    monkeypatch.syspath_prepend(str(installed))
    registry._targets.cache_clear()
    yield importlib.import_module("socketwire")
    registry._targets.cache_clear()
    sys.modules.pop("socketwire")


@pytest.mark.multiproc
def test_the_conformance_suite_passes(installed: Path) -> None:
    done = subprocess.run(
        [*SUITE, "--backend", "socketwire", "--ranks", "2"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    passed, unsupported, failed = map(
        int, re.search(r"(\d+) pass, (\d+) unsupported and raising, (\d+) FAIL", done.stdout).groups()
    )
    assert passed > 1000
    assert (unsupported, failed) == (0, 0)


def outcome(call):
    try:
        call()
    except Exception as error:
        return error
    return None


def test_a_rank_that_leaves_is_named(module: ModuleType) -> None:
    def body(comm):
        comm.allreduce(np.ones(10))
        if comm.rank == 1:
            return None
        return outcome(lambda: comm.allreduce(np.ones(10)))

    errors = run_threads(3, body, "socketwire")
    assert all(isinstance(errors[rank], PeerLost) for rank in (0, 2)), errors
    assert {errors[0].ranks, errors[2].ranks} == {(1,)}


def test_a_deadline_names_who_is_late_and_everybody_hears_of_it(module: ModuleType) -> None:
    def body(comm):
        comm.broadcast(np.ones(10), 1)
        began = time.monotonic()
        if comm.rank == 1:
            ended.wait(20)
            return outcome(lambda: comm.broadcast(np.ones(10), 1))
        error = outcome(lambda: comm.broadcast(np.ones(10), 1, timeout_s=0.3))
        waited.append(time.monotonic() - began)
        if len(waited) == 2:
            ended.set()
        return error

    ended, waited = threading.Event(), []
    errors = run_threads(3, body, "socketwire")
    assert [type(error) for error in errors] == [DeadlineExceeded] * 3
    assert {error.ranks for error in errors} == {(1,)}
    assert max(waited) < 5


def test_a_rank_that_does_not_come_to_a_new_schedule_is_named(module: ModuleType) -> None:
    def body(comm):
        if comm.rank == 1:
            return ended.wait(20)
        error = outcome(lambda: comm.allreduce(np.ones(10), timeout_s=0.3))
        ended.set()
        return error

    ended = threading.Event()
    late, in_time = run_threads(2, body, "socketwire")
    assert in_time
    assert isinstance(late, DeadlineExceeded)
    assert late.ranks == (1,)


def test_an_abort_ends_every_wait(module: ModuleType) -> None:
    def body(comm):
        comm.barrier()
        work = comm.recv(np.empty(3), (comm.rank + 1) % 3, async_op=True)
        assert not work.done()
        ready.wait(20)
        if comm.rank == 2:
            comm.abort("the test says so")
            comm.abort("twice is fine")
        errors = [outcome(work.wait), outcome(work.wait)]
        assert work.done()
        return errors

    ready = threading.Barrier(3)
    for errors in run_threads(3, body, "socketwire"):
        for error in errors:
            assert isinstance(error, Aborted), error
            assert "aborted by rank 2: the test says so" in str(error)


def test_impatience_does_not_end_a_group(module: ModuleType) -> None:
    def body(comm):
        into = np.zeros(3)
        if comm.rank == 0:
            work = comm.recv(into, 1, async_op=True)
            assert isinstance(outcome(lambda: work.wait(0.1)), DeadlineExceeded)
            comm.barrier()
            work.wait()
        else:
            comm.barrier()
            comm.send(np.arange(3.0), 0)
        return into.tolist()

    assert run_threads(2, body, "socketwire")[0] == [0, 1, 2]


def test_calls_that_differ_end_in_an_error(module: ModuleType) -> None:
    def body(comm):
        return outcome(lambda: comm.broadcast(np.ones(10 + comm.rank)))

    errors = run_threads(2, body, "socketwire")
    assert isinstance(errors[1], ProtocolError)
    assert "80 bytes, not the 88" in str(errors[1])


def test_who_does_not_come_is_named(module: ModuleType) -> None:
    config = GroupConfig("alone", 0, 2, (0, 1), 0.2, MemoryStore())
    with pytest.raises(DeadlineExceeded, match=r"rank \[1\] did not come") as caught:
        module.BACKEND.open(config)
    assert caught.value.ranks == (1,)


def test_it_is_found_by_its_entry_point(module: ModuleType) -> None:
    assert registry.get_backend("socketwire") is module.BACKEND
    with pytest.raises(UsageError, match="socketwire"):
        registry.get_backend("nosuch")
