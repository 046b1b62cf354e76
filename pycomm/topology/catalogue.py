"""Real machines by name: the files of ``topologies/``, each figure with its source."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pycomm.errors import TopologyError
from pycomm.topology.files import load
from pycomm.topology.model import Topology
from pycomm.topology.schema import suggestion

__all__ = ["folder", "named", "names"]


@cache
def folder() -> Path:
    """Find the folder of the catalogue: within the package where it is installed, beside it in a checkout.

    Raises
    ------
    TopologyError
        There is none: the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    for place in (package / "topologies", package.parent / "topologies"):
        if (place / "README.md").is_file():
            return place
    raise TopologyError(f"the catalogue of topologies is not in {package}; install pycomm again")


@cache
def _files() -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder().rglob("*.toml"))}


def names() -> tuple[str, ...]:
    """List the names of all topologies of the catalogue, sorted."""
    return tuple(sorted(_files()))


@cache
def named(name: str) -> Topology:
    """Look up a topology of the catalogue.

    Parameters
    ----------
    name
        One of :func:`names`, such as ``"dgx_h100"``.

    Raises
    ------
    TopologyError
        There is no such topology.
    """
    file = _files().get(name)
    if file is None:
        raise TopologyError(f"there is no topology {name!r} in the catalogue{suggestion(name, names())}")
    return load(file)
