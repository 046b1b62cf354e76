"""What a communicator did of late, and the file that tells it when communication has failed.

Calls that take the backend's shortcut leave no trace: nothing may cost them anything. A communicator whose
folder is set (``PYCOMM_EVENTS``) takes no shortcuts, so that its dump tells of every call.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

from pycomm.backends.base import Call
from pycomm.errors import CommError
from pycomm.events import Phase, Recorder, event, logger
from pycomm.types import CollectiveKind

__all__ = ["Journal"]

Note = Callable[[Phase, BaseException | None], None]
_LOG = logger("events")


class Journal:
    """Notes one communicator's calls. Thread-safe.

    Parameters
    ----------
    rank
        This process in the group.
    comm
        Name of the group.
    folder
        Where to write the dump of a failed communicator, made when missing; ``""`` for nowhere.

    Attributes
    ----------
    recorder : Recorder
        The records.
    """

    def __init__(self, rank: int, comm: str, folder: str) -> None:
        self.recorder = Recorder()
        self._rank, self._comm, self._folder = rank, comm, folder
        self._numbers = itertools.count()
        self._last = (-1, CollectiveKind.BARRIER)
        self._path: Path | None = None

    def open(self, call: Call) -> Note:
        """Begin with a call; returns what notes its phases, the last one with the failure if it is one."""
        seq, kind = next(self._numbers), call.kind
        self._last = (seq, kind)
        between_two = kind in (CollectiveKind.SEND, CollectiveKind.RECV)
        peer, channel = call.peer, call.tag if between_two else -1
        nbytes = max(0 if view is None else view.nbytes for view in (call.send, call.recv))

        def note(phase: Phase, failure: BaseException | None) -> None:
            self.recorder.record(
                event(
                    self._rank, self._comm, seq, kind, phase,
                    peer=peer, channel=channel, nbytes=nbytes,
                )
            )  # fmt: skip
            if isinstance(failure, CommError):
                self.dump(f"{type(failure).__name__}: {failure}")

        return note

    def aborted(self, reason: str) -> None:
        """Note that this rank has aborted the group, and write the dump."""
        seq, kind = self._last
        if seq >= 0:
            self.recorder.record(event(self._rank, self._comm, seq, kind, Phase.ABORTED))
        self.dump(f"aborted by this rank: {reason}")

    def dump(self, reason: str) -> None:
        """Write what is known, if there is a folder for it; a later dump takes the place of an earlier one.

        Never raises for want of a file: the failure that is being told of matters more.
        """
        if not self._folder:
            return
        try:
            if self._path is None:
                self._path = self._new_path()
            self.recorder.dump(self._path, reason)
        except OSError as error:
            _LOG.warning("the events of group %s could not be written: %s", self._comm, error)
        else:
            _LOG.info("the events of group %s are in %s", self._comm, self._path)

    def _new_path(self) -> Path:
        """Choose a name that no other communicator of this folder has."""
        folder = Path(self._folder)
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self._comm}-rank{self._rank}-{os.uname().nodename}-{os.getpid()}"
        names = (f"{stem}{'' if turn == 1 else f'-{turn}'}.jsonl" for turn in itertools.count(1))
        return next(folder / name for name in names if not (folder / name).exists())
