"""Every exception that pycomm raises, and the diagnostics a schedule can earn.

A message says what failed, where (rank, peer, operation, group), what was expected and what was found, and
what to do next. Exceptions carry the same facts as attributes, so that programs need not parse text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "Aborted",
    "AuthError",
    "BackendUnavailable",
    "CommError",
    "DeadlineExceeded",
    "Diagnostic",
    "InternalError",
    "Mismatch",
    "PeerLost",
    "PlanningError",
    "ProtocolError",
    "PycommError",
    "ResourceError",
    "ScheduleError",
    "TopologyError",
    "Unsupported",
    "UsageError",
]


class PycommError(RuntimeError):
    """Base of every exception that pycomm raises on purpose."""


class UsageError(PycommError, ValueError):
    """The call can never work as written."""


class TopologyError(PycommError):
    """A topology description is malformed or contradicts itself."""


class PlanningError(PycommError):
    """No planner fits the request; the message lists each planner's reason."""


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One finding about a schedule.

    Parameters
    ----------
    code
        Stable code such as ``"V301"``; the list is in ``docs/diagnostics.md``.
    rank, op
        Where: the rank, and the index of the op in that rank's program; ``-1`` when the finding has no such
        place.
    message
        One sentence: what was expected, what was found.
    """

    code: str
    rank: int
    op: int
    message: str

    def __str__(self) -> str:
        rank = f" rank {self.rank}" if self.rank >= 0 else ""
        op = f" op {self.op}" if self.op >= 0 else ""
        return f"{self.code}{rank}{op}: {self.message}"


class ScheduleError(PycommError):
    """A schedule failed verification.

    Attributes
    ----------
    diagnostics
        Every finding, in order of code, rank and op.
    """

    def __init__(self, message: str, diagnostics: Iterable[Diagnostic] = ()) -> None:
        self.diagnostics: tuple[Diagnostic, ...] = tuple(diagnostics)
        shown = "".join(f"\n  {d}" for d in self.diagnostics[:20])
        more = len(self.diagnostics) - 20
        super().__init__(message + shown + (f"\n  ... and {more} more" if more > 0 else ""))


class BackendUnavailable(PycommError):
    """A backend is not installed, or does not work on this machine."""


class Unsupported(PycommError):
    """A valid call that this backend does not offer."""


class Mismatch(PycommError):
    """Ranks made different calls; the message shows both sides. The communicator stays usable."""


class ResourceError(PycommError):
    """Memory, descriptors, ports or threads ran out: what, limit, had, needed."""


class InternalError(PycommError):
    """A bug in pycomm; please report it with the message."""


class CommError(PycommError):
    """Communication failed while running; the communicator is dead: close it and build a new one.

    Attributes
    ----------
    group : str
        Name of the communicator.
    operation : str
        The operation that failed, ``""`` when none was running.
    seq : int
        Its sequence number in the group, ``-1`` when none was running.
    ranks : tuple of int
        The ranks at fault, numbered as in the group; empty when unknown.
    """

    def __init__(
        self, message: str, *, group: str = "", operation: str = "", seq: int = -1, ranks: Iterable[int] = ()
    ) -> None:
        super().__init__(message)
        self.group = group
        self.operation = operation
        self.seq = seq
        self.ranks = tuple(ranks)


class PeerLost(CommError):
    """A peer's process ended or its connection broke."""


class DeadlineExceeded(CommError, TimeoutError):
    """A wait reached its deadline."""


class ProtocolError(CommError):
    """A peer sent something that the protocol does not allow."""


class AuthError(CommError):
    """A peer could not prove that it knows the job's secret."""


class Aborted(CommError):
    """The group was aborted; the message carries the first cause."""
