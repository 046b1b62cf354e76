"""The tuner: which planner serves a request best, how long it will take, and why.

``choose`` decides (:mod:`pycomm.tuner.choosing`), ``explain`` says why (:mod:`pycomm.tuner.explaining`).
Predictions come from the network (:mod:`pycomm.tuner.pricing`) or closed forms (:mod:`pycomm.cost`); what was
measured overrides them (:mod:`pycomm.tuner.table`).
"""

from pycomm.tuner.choosing import Choice, Estimate, choose, estimates
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
