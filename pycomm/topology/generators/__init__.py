"""Networks made by rule: functions from a few numbers to a topology; files call them by name.

Every generator is a function with keyword parameters, and the same words are its keys in a file. Rates are
texts with a unit, or whole bytes per second; ends are bare devices, or hosts made from a template.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pycomm.topology.generators.clos import (
    dual_plane,
    fat_tree,
    leaf_spine,
    rail_only,
    rail_optimized,
)
from pycomm.topology.generators.direct import (
    box,
    full_mesh,
    hypercube,
    hyperx,
    ring,
    star,
    torus,
)
from pycomm.topology.generators.dragonfly import dragonfly
from pycomm.topology.generators.fabric import FabricOptions
from pycomm.topology.model import Topology

__all__ = [
    "GENERATORS",
    "FabricOptions",
    "box",
    "dragonfly",
    "dual_plane",
    "fat_tree",
    "full_mesh",
    "hypercube",
    "hyperx",
    "leaf_spine",
    "rail_only",
    "rail_optimized",
    "ring",
    "star",
    "torus",
]

GENERATORS: Mapping[str, Callable[..., Topology]] = {
    generator.__name__: generator
    for generator in (
        box,
        dragonfly,
        dual_plane,
        fat_tree,
        full_mesh,
        hypercube,
        hyperx,
        leaf_spine,
        rail_only,
        rail_optimized,
        ring,
        star,
        torus,
    )
}
"""All generators by name."""
