"""Passes: functions from a schedule to a schedule; valid in, valid out."""

from pycomm.schedule.passes.relabel import relabel
from pycomm.schedule.passes.synchronise import synchronise

__all__ = ["relabel", "synchronise"]
