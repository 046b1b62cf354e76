"""Tools for testing communication: rank launchers, the oracle's cases, the conformance suite."""

from pycomm.testing.processes import Ranks, run_processes, start_processes
from pycomm.testing.threads import RankError, run_threads

__all__ = ["RankError", "Ranks", "run_processes", "run_threads", "start_processes"]
