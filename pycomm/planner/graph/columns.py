"""The trees of a forest as columns: what takes one array operation here takes thousands of steps on trees."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pycomm.errors import PlanningError
from pycomm.planner.graph.forest import Forest
from pycomm.planner.graph.symmetric import SymmetricForest

__all__ = ["Columns", "columns_of"]

Array = npt.NDArray[np.int64]


class Columns(NamedTuple):
    """The trees of a forest as columns, one row per tree or, below ``first``, per edge.

    Edges of tree t are rows ``first[t] .. first[t + 1]``. ``above`` is the edge that reaches the parent, -1
    where that is the root; ``inner`` whether the child has children; ``eldest`` whether it is the first child
    of its parent.
    """

    root: Array
    weight: Array
    height: Array
    first: Array
    parent: Array
    child: Array
    depth: Array
    above: Array
    inner: npt.NDArray[np.bool_]
    eldest: npt.NDArray[np.bool_]


@runtime_checkable
class _Flat(Protocol):
    """A forest that knows its own columns."""

    def columns(self) -> Columns:
        """Flatten it."""


def columns_of(forest: Forest) -> Columns:
    """Flatten a forest; images of trees are not made one by one.

    Raises
    ------
    PlanningError
        A tree has fewer or more edges than span the ranks.
    """
    if isinstance(forest, _Flat):
        return forest.columns()
    if not isinstance(forest, SymmetricForest):
        return _columns_of_trees(forest)
    base = _columns_of_trees(Forest(forest.network, tuple(tree.as_tree() for tree in forest.base)))
    images = np.arange(forest.symmetry.order)[:, None]
    turned = (
        forest.symmetry.image(images, column).reshape(-1) for column in (base.root, base.parent, base.child)
    )
    above = np.where(base.above < 0, -1, base.above + images * base.above.size)
    root, parent, child = turned
    return Columns(
        root,
        np.tile(base.weight, images.size),
        np.tile(base.height, images.size),
        np.arange(root.size + 1) * (forest.network.nranks - 1),
        parent,
        child,
        np.tile(base.depth, images.size),
        above.reshape(-1),
        np.tile(base.inner, images.size),
        np.tile(base.eldest, images.size),
    )


def _columns_of_trees(forest: Forest) -> Columns:
    n, count = forest.network.nranks, len(forest.trees)
    heads: list[tuple[int, int]] = []
    parent: list[int] = []
    child: list[int] = []
    depth: list[int] = []
    above: list[int] = []
    for tree in forest.trees:
        heads.append((tree.root, tree.weight))
        level, reached_by = [0] * n, [-1] * n
        for number, (a, b, _) in enumerate(tree.edges, len(parent)):
            level[b] = level[a] + 1
            depth.append(level[b])
            above.append(reached_by[a])
            reached_by[b] = number
            parent.append(a)
            child.append(b)
    edges = n - 1
    if len(parent) != edges * count:
        raise PlanningError(f"cannot lower forests: a tree has not the {edges} edges that span {n} ranks")
    depths = np.array(depth, np.int64)
    aboves = np.array(above, np.int64)
    inner = np.zeros(depths.size, np.bool_)
    inner[aboves[aboves >= 0]] = True
    parents = np.array(parent, np.int64)
    family = np.repeat(np.arange(count), edges) * n + parents
    eldest = np.zeros(depths.size, np.bool_)
    eldest[np.unique(family, return_index=True)[1]] = True
    root, weights = np.array(heads, np.int64).T
    return Columns(
        root,
        weights,
        depths.reshape(count, edges).max(axis=1),
        np.arange(count + 1) * edges,
        parents,
        np.array(child, np.int64),
        depths,
        aboves,
        inner,
        eldest,
    )
