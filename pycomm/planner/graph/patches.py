r"""A tree that has changed, in the names of its base tree.

A *patch* is the edges that were cut, and for each piece that was cut off the new edge that holds it. A piece
is named by its topmost rank.

::

    base tree       cut 0 -> 1, and 1 -> 3         hold 3 by 2, and 1 by 3

         0                 0                               0
        / \                 \                               \
       1   2           1     2                               2
      / \                                                  /
     3   4              \                                 3      pieces: 0 with 2, 1 with 4, 3
                    3    4                               /
                                                        1
                                                         \
                                                          4
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from pycomm.planner.graph.forest import Edge, Tree
from pycomm.planner.graph.tree_index import TreeIndex

__all__ = ["Held", "Patch"]


class Held(NamedTuple):
    """The new edge of a piece: the rank that tells its topmost rank, in names of the base, and the path."""

    parent: int
    path: tuple[int, ...]


class Patch:
    """A tree that has changed.

    Parameters
    ----------
    index, tree, weight
        Which tree of which forest it was, and how much it carries now.
    """

    __slots__ = (
        "_owners",
        "_starts",
        "back",
        "cut",
        "fore",
        "held",
        "root",
        "shape",
        "tree",
        "uses",
        "weight",
    )

    def __init__(self, index: TreeIndex, tree: int, weight: int) -> None:
        self.tree, self.weight = tree, weight
        self.shape = index.shape(tree)
        self.fore, self.back = index.names(tree)
        self.root = self.shape.tree.root
        self.cut: dict[int, tuple[int, int]] = {}
        """Topmost rank of each piece that was cut off; its places in the base."""
        self.held: dict[int, Held] = {}
        self._starts: list[int] = []
        self._owners: list[int] = []
        self.uses: dict[int, int] = {}
        """How many edges cross a link up to a switch that replicates, for links where that has changed."""

    def copy(self, weight: int | None = None) -> Patch:
        """Make one that can change by itself."""
        twin = object.__new__(Patch)
        twin.tree, twin.shape, twin.fore, twin.back = self.tree, self.shape, self.fore, self.back
        twin.weight = self.weight if weight is None else weight
        twin.root, twin.cut, twin.held = self.root, dict(self.cut), dict(self.held)
        twin.uses = dict(self.uses)
        twin._starts, twin._owners = self._starts, self._owners
        return twin

    def piece(self, rank: int) -> int:
        """Topmost rank of the piece that a rank is in."""
        if not self._starts:
            self._find_pieces()
        return self._owners[bisect_right(self._starts, self.shape.first[rank]) - 1]

    def _find_pieces(self) -> None:
        """Say from which place on, in the order of the base, which piece it is."""
        starts, owners = [0], [self.shape.tree.root]
        inside = [(len(self.shape.row), self.shape.tree.root)]
        for first, last, top in sorted((first, last, top) for top, (first, last) in self.cut.items()):
            while inside[-1][0] <= first:
                end, _ = inside.pop()
                starts.append(end)
                owners.append(inside[-1][1])
            starts.append(first)
            owners.append(top)
            inside.append((last, top))
        while len(inside) > 1:
            starts.append(inside.pop()[0])
            owners.append(inside[-1][1])
        self._starts, self._owners = starts, owners

    def holds(self, rank: int) -> bool:
        """Whether a rank hears the root."""
        return self.above(self.piece(rank)) is not None

    def above(self, top: int) -> int | None:
        """Depth of the topmost rank of a piece less its depth in the base; ``None`` when it hears nothing."""
        depth, held, shape = 0, self.held, self.shape
        piece = top
        while piece != self.root:
            if piece not in held:
                return None
            rank = held[piece].parent
            piece = self.piece(rank)
            depth += shape.depth[rank] - shape.depth[piece] + 1
        return depth - shape.depth[top]

    def sever(self, rank: int) -> None:
        """Cut a rank off from whoever tells it."""
        shape = self.shape
        if rank != shape.tree.root and rank not in self.cut:
            self.cut[rank] = shape.first[rank], shape.last[rank]
            self._starts = []
        self.held.pop(rank, None)

    def undo(self, rank: int, held: Held | None, *, was_cut: bool) -> None:
        """Make a rank hear again as it did before it was cut off."""
        if held is not None:
            self.held[rank] = held
        if not was_cut:
            del self.cut[rank]
            self._starts = []

    def path_of(self, rank: int) -> tuple[int, ...] | None:
        """Path by which a rank hears, in names of the network; ``None`` where nobody tells it."""
        if rank in self.held:
            return self.held[rank].path
        row = self.shape.row[rank]
        if row < 0 or rank in self.cut:
            return None
        path = self.shape.tree.path[row]
        return tuple(self.fore[path[path >= 0]].tolist())

    def told_by(self, rank: int) -> int:
        """Who tells a rank; -1 where nobody does."""
        if rank in self.held:
            return self.held[rank].parent
        row = self.shape.row[rank]
        return -1 if row < 0 or rank in self.cut else self.shape.src[row]

    def told(self, rank: int) -> list[int]:
        """Ranks that a rank tells."""
        kept = [r for r in self.shape.children.get(rank, ()) if r not in self.cut]
        return kept + [top for top, held in self.held.items() if held.parent == rank]

    def key(self) -> tuple[object, ...]:
        """Give what two patches of one tree have in common when they are the same tree."""
        return self.tree, self.root, tuple(sorted(self.cut)), tuple(sorted(self.held.items()))

    def as_tree(self, vertex: list[int]) -> Tree:
        """Make the tree; ``vertex`` renumbers the network, and is -1 for vertices that are gone."""
        telling: dict[int, list[int]] = {}
        for rank in range(len(self.shape.row)):
            if rank != self.root and vertex[self.fore[rank]] >= 0:
                telling.setdefault(self.told_by(rank), []).append(rank)
        edges, reached = [], [self.root]
        for rank in reached:
            for other in telling.get(rank, ()):
                path = tuple(vertex[v] for v in self.path_of(other) or ())
                edges.append(Edge(path[0], path[-1], path))
                reached.append(other)
        return Tree(vertex[self.fore[self.root]], self.weight, tuple(edges))

    def height(self) -> int:
        """Edges on the longest way from the root."""
        deepest, level = 0, [self.root]
        while level:
            level = [other for rank in level for other in self.told(rank)]
            deepest += bool(level)
        return deepest
