"""Where the ranks of a job on one host meet: a directory that only this user can read.

The directory is a :class:`~pycomm.store.FileStore`, so it also carries the job's secret. Rank 0 makes it
under a name nobody can guess and points to it by a file named after the job. Each rank holds a lock on a file
of its own in there for as long as it lives; the kernel drops the lock however the process ends, so everybody
can tell whether a directory is in use: stale ones are ignored, and removed by whoever comes across them.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from pathlib import Path

from pycomm.errors import AuthError, DeadlineExceeded, UsageError
from pycomm.store import FileStore

__all__ = ["LocalJob", "runtime_directory"]


def runtime_directory() -> Path:
    """Return this user's directory for short-lived files; refuses one that others can enter."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    path = Path(base) / "pycomm" if base and Path(base).is_dir() else None
    if path is None:
        path = Path(tempfile.gettempdir()) / f"pycomm-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    facts = path.lstat()
    if facts.st_uid != os.getuid() or facts.st_mode & 0o077 or path.is_symlink():
        raise AuthError(
            f"{path} must be a directory that belongs to this user and that nobody else can enter; remove "
            "it, or set "
            "XDG_RUNTIME_DIR to another place"
        )
    return path


def _is_locked(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def _in_use(directory: Path) -> bool:
    return any(_is_locked(path) for path in directory.glob("alive.*"))


class LocalJob:
    """The membership of this rank in a job on one host.

    Parameters
    ----------
    job
        What all ranks of the job, and no other job of this user, have in common.
    rank
        This process.
    timeout_s
        How long to wait for rank 0.

    Attributes
    ----------
    store : FileStore
        Where the ranks exchange addresses.
    secret : str
        The job's secret, made by rank 0.
    """

    def __init__(self, job: str, rank: int, timeout_s: float) -> None:
        self._rank = rank
        self._pointer = runtime_directory() / f"job-{hashlib.sha256(job.encode()).hexdigest()[:24]}"
        self._lock_fd = -1
        if rank == 0:
            self._create(job)
        else:
            self._join(job, timeout_s)
        self.secret = self.store.get("secret", timeout_s=timeout_s).decode()

    def _create(self, job: str) -> None:
        current = self._target()
        if current is not None and _in_use(current):
            raise UsageError(
                f"job {job!r} already runs on this host (its directory is {current}); use another "
                "rendezvous, or end it"
            )
        _sweep(self._pointer.parent)
        directory = Path(tempfile.mkdtemp(prefix=f"{self._pointer.name}-", dir=self._pointer.parent))
        self.store = FileStore(directory)
        self._lock(directory)
        self.store.set("secret", secrets.token_hex(32).encode())
        draft = directory / "pointer"
        draft.write_text(directory.name)
        draft.replace(self._pointer)

    def _join(self, job: str, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        pause_s = 0.0005
        while True:
            directory = self._target()
            if directory is not None and _is_locked(directory / "alive.0") and self._lock(directory):
                self.store = FileStore(directory)
                return
            if time.monotonic() >= deadline:
                raise DeadlineExceeded(
                    f"rank {self._rank} waited {timeout_s:g} s for rank 0 of job {job!r} on this host; "
                    "check that rank 0 was started by the same launcher and the same user",
                    operation="rendezvous",
                    ranks=(0,),
                )
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.02)

    def _target(self) -> Path | None:
        try:
            return self._pointer.parent / self._pointer.read_text()
        except FileNotFoundError:
            return None

    def _lock(self, directory: Path) -> bool:
        """Take this rank's lock; fails when another process holds it: the directory is of an ending job."""
        try:
            descriptor = os.open(
                directory / f"alive.{self._rank}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._lock_fd = descriptor
        return True

    def close(self) -> None:
        """Leave; rank 0, which leaves last, removes the directory. Twice is fine."""
        if self._lock_fd < 0:
            return
        os.close(self._lock_fd)
        self._lock_fd = -1
        if self._rank == 0:
            directory = self.store.directory
            if self._target() == directory:
                self._pointer.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)


def _sweep(base: Path) -> None:
    """Remove what jobs left whose every rank was killed."""
    for directory in base.glob("job-*-*"):
        with contextlib.suppress(OSError):
            # A directory that is being made has no lock yet, for a moment.
            if time.time() - directory.stat().st_mtime > 60 and not _in_use(directory):
                shutil.rmtree(directory, ignore_errors=True)
    for pointer in base.glob("job-????????????????????????"):
        with contextlib.suppress(OSError):
            if not (base / pointer.read_text()).exists():
                pointer.unlink()
