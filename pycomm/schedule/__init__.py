"""The schedule: the one thing that planners, verifier, simulator, executors and exporters share."""

from pycomm.schedule.ir import FORMAT_VERSION, NCOLUMNS, Op, OpKind, Schedule, Space, Span

__all__ = ["FORMAT_VERSION", "NCOLUMNS", "Op", "OpKind", "Schedule", "Space", "Span"]
