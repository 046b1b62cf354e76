"""Proving schedules right before they run. What each code means is told in ``docs/diagnostics.md``."""

from pycomm.verify.checks import check, verify
from pycomm.verify.metrics import Metrics, metrics
from pycomm.verify.resources import Limits
from pycomm.verify.routes import Reachability

__all__ = ["Limits", "Metrics", "Reachability", "check", "metrics", "verify"]
