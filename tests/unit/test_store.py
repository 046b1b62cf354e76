"""The stores keep what they promise: written once, waited for, private."""

from __future__ import annotations

import os
import stat
import threading
import time

import pytest

from pycomm.errors import AuthError, DeadlineExceeded, UsageError
from pycomm.local_job import LocalJob, runtime_directory
from pycomm.store import FileStore, MemoryStore


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "store")


def test_set_and_get(store):
    store.set("a/b c", b"\0value")
    assert store.get("a/b c", timeout_s=1) == b"\0value"


def test_a_key_is_written_once(store):
    store.set("k", b"1")
    store.set("k", b"1")
    with pytest.raises(UsageError, match="two jobs"):
        store.set("k", b"2")
    assert store.get("k", timeout_s=1) == b"1"


def test_get_waits_for_the_writer(store):
    timer = threading.Timer(0.05, store.set, ("late", b"x"))
    timer.start()
    assert store.get("late", timeout_s=10) == b"x"
    timer.join()


def test_get_ends_at_its_deadline(store):
    started = time.monotonic()
    with pytest.raises(DeadlineExceeded, match="'never'"):
        store.get("never", timeout_s=0.1)
    assert time.monotonic() - started < 5


def test_file_store_is_private(tmp_path):
    store = FileStore(tmp_path / "store")
    store.set("k", b"secret")
    assert stat.S_IMODE(store.directory.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.directory / "k").stat().st_mode) == 0o600
    assert [p.name for p in store.directory.iterdir()] == ["k"], "no draft is left"


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "pycomm"


def join_all(job, n):
    jobs = [None] * n

    def join(rank):
        jobs[rank] = LocalJob(job, rank, 10)

    threads = [threading.Thread(target=join, args=(r,)) for r in reversed(range(n))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return jobs


def test_local_job_shares_a_secret_and_leaves_nothing(runtime):
    jobs = join_all("job", 3)
    assert len({job.secret for job in jobs}) == 1
    assert len(jobs[0].secret) == 64
    jobs[0].store.set("x", b"1")
    assert jobs[2].store.get("x", timeout_s=1) == b"1"
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    for job in jobs:
        job.close()
        job.close()
    assert list(runtime.iterdir()) == []


def test_local_job_ignores_what_a_dead_job_left(runtime):
    first = join_all("job", 1)[0]
    os.close(first._lock_fd)  # as if its process had been killed
    old = first.store.directory
    with pytest.raises(DeadlineExceeded, match="rank 0 of job 'job'"):
        LocalJob("job", 1, 0.1)
    again = join_all("job", 2)
    assert again[1].store.directory != old
    assert again[0].secret != first.secret
    for job in again:
        job.close()


def test_local_job_refuses_a_name_in_use(runtime):
    (job,) = join_all("job", 1)
    with pytest.raises(UsageError, match="already runs"):
        LocalJob("job", 0, 1)
    job.close()


def test_runtime_directory_of_others_is_refused(runtime):
    runtime.mkdir(mode=0o755)
    runtime.chmod(0o755)
    with pytest.raises(AuthError, match="nobody else"):
        runtime_directory()
