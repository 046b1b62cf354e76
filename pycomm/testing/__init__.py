"""Tools for testing communication: rank launchers, the oracle's cases, the conformance suite."""

from pycomm.testing.threads import RankError, run_threads

__all__ = ["RankError", "run_threads"]
