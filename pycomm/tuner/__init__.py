"""The tuner: which planner serves a request best, how long it will take, and why.

``choose`` decides (:mod:`pycomm.tuner.choosing`), ``explain`` says why (:mod:`pycomm.tuner.explaining`).
Predictions come from the network (:mod:`pycomm.tuner.pricing`) or closed forms (:mod:`pycomm.cost`); what was
measured overrides them (:mod:`pycomm.tuner.table`).
"""

from typing import TYPE_CHECKING

from pycomm.lazy import later
from pycomm.tuner.choosing import Choice, Estimate, choose, estimates

if TYPE_CHECKING:
    from pycomm.tuner.explaining import Crossover, Explanation, Limit, crossovers, explain

__all__ = [
    "Choice",
    "Crossover",
    "Estimate",
    "Explanation",
    "Limit",
    "choose",
    "crossovers",
    "estimates",
    "explain",
]

# Choosing happens in the middle of a collective; what only people ask for is imported when they do.
_EXPLAINING = ("Crossover", "Explanation", "Limit", "crossovers", "explain")
__getattr__, __dir__ = later(__name__, dict.fromkeys(_EXPLAINING, "pycomm.tuner.explaining"))
