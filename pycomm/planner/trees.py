r"""Rooted trees and what flows along them; the shapes come from the planners.

::

                 root            broadcast  from the root down, piece by piece
               /  |   \          reduce     from the leaves up: own input, then each child's partial result
              a   b    c         allreduce  up, then down
             /|   |              gather     up: a rank sends its whole subtree, in preorder, as one message
            d e   f              scatter    down, the same way

The children of a rank are listed from the one with the least to do to the one with the most: results are
taken in that order and data is handed out in the opposite one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out, scr

__all__ = ["Tree", "allreduce", "broadcast", "gather", "reduce", "runs", "scatter"]

Array = npt.NDArray[np.int64]


class Tree:
    """A tree over all ranks.

    Parameters
    ----------
    root
        The rank at its top.
    children
        Children of each rank, those with the least to do first.

    Attributes
    ----------
    parent, depth, height, size, index : array
        Of each rank: its parent (the root's is -1), edges to the root, edges to its deepest descendant, ranks
        in its subtree, place in ``preorder``.
    preorder : array
        All ranks, each followed by its subtree.
    edges : array
        Parent, child and the child's place among its parent's children, one row per edge.
    """

    def __init__(self, root: int, children: Sequence[Sequence[int]]) -> None:
        n = len(children)
        self.root, self.children = root, children
        self.parent, self.depth = np.full(n, -1, np.int64), np.zeros(n, np.int64)
        self.height, self.size = np.zeros(n, np.int64), np.ones(n, np.int64)
        order, stack = [], [root]
        while stack:
            rank = stack.pop()
            order.append(rank)
            for child in children[rank]:
                self.parent[child] = rank
                self.depth[child] = self.depth[rank] + 1
            stack.extend(reversed(children[rank]))
        for rank in reversed(order[1:]):
            parent = self.parent[rank]
            self.size[parent] += self.size[rank]
            self.height[parent] = max(self.height[parent], self.height[rank] + 1)
        self.preorder = np.array(order, np.int64)
        self.index = np.empty(n, np.int64)
        self.index[self.preorder] = np.arange(n)
        rows = [(p, c, i) for p, listed in enumerate(children) for i, c in enumerate(listed)]
        self.edges = np.array(rows, np.int64).reshape(-1, 3)


def broadcast(
    builder: ScheduleBuilder,
    tree: Tree,
    chunks: range,
    *,
    channel: int = 0,
    after: int = 0,
    src: Place | None = None,
) -> None:
    """Send ``chunks`` from the root to everybody's OUTPUT; the root reads INPUT unless ``src`` differs."""
    parent, child, _ = (column[::-1] for column in tree.edges.T)
    top = parent == tree.root
    for chunk in chunks:
        builder.recv(child, parent, out(chunk), channel=channel, when=after + tree.depth[child])
        builder.send(parent[top], child[top], src or inp(chunk), channel=channel, when=after)
        inner = (parent[~top], child[~top])
        builder.send(*inner, out(chunk), channel=channel, when=after + tree.depth[inner[0]])


def reduce(
    builder: ScheduleBuilder, tree: Tree, chunks: range, *, channel: int = 0, keep: bool = False
) -> None:
    """Combine ``chunks`` of everybody's INPUT into the root's OUTPUT.

    Others keep their partial results in scratch, or in OUTPUT where ``keep`` says that they may.
    """
    parent, child, place = tree.edges.T
    inner = np.unique(parent[parent != tree.root])
    leaf = np.flatnonzero(tree.height == 0)
    leaf = leaf[leaf != tree.root]
    for chunk in chunks:
        slot = np.full(tree.parent.size, chunk, np.int64)
        space = np.ones_like(slot)  # OUTPUT
        if not keep:
            slot[inner] = builder.scratch(inner, np.full(inner.size, chunk))
            space[inner] = 2  # SCRATCH
        for turn in range(int(place.max(initial=-1)) + 1):
            p, c = parent[place == turn], child[place == turn]
            held = Place(space[p], slot[p])
            first = inp(chunk) if turn == 0 else held
            builder.recv_reduce(p, c, first, held, channel=channel, when=tree.height[p])
        builder.send(leaf, tree.parent[leaf], inp(chunk), channel=channel)
        held = Place(space[inner], slot[inner])
        builder.send(inner, tree.parent[inner], held, channel=channel, when=tree.height[inner])


def allreduce(builder: ScheduleBuilder, tree: Tree, chunks: range, *, channel: int = 0) -> None:
    """Combine ``chunks`` at the root and send the result to everybody."""
    turn = int(tree.height[tree.root])
    for chunk in chunks:
        piece = range(chunk, chunk + 1)
        reduce(builder, tree, piece, channel=channel, keep=True)
        broadcast(builder, tree, piece, channel=channel, after=turn, src=out(chunk))


def runs(ranks: Array) -> list[tuple[int, int, int]]:
    """Cut ``ranks`` into runs of consecutive numbers: index, first rank, length of each."""
    cuts = np.flatnonzero(np.diff(ranks) != 1) + 1
    starts = np.concatenate([[0], cuts])
    lengths = np.diff(np.concatenate([starts, [ranks.size]]))
    return [(int(s), int(ranks[s]), int(k)) for s, k in zip(starts, lengths, strict=True)]


def _subtree(tree: Tree, rank: int) -> Array:
    first = tree.index[rank]
    ranks: Array = tree.preorder[first : first + tree.size[rank]]
    return ranks


def _buffer(builder: ScheduleBuilder, tree: Tree, rank: int) -> int:
    """Reserve scratch for the blocks of ``rank``'s subtree, in preorder."""
    return builder.scratch(rank, _subtree(tree, rank))


def gather(builder: ScheduleBuilder, tree: Tree) -> None:
    """Bring everybody's block to the root's OUTPUT."""
    root = tree.root
    builder.copy(root, inp(0), out(root))
    for rank in tree.preorder[:0:-1].tolist():
        parent = int(tree.parent[rank])
        if tree.size[rank] == 1:
            builder.send(rank, parent, inp(0))
            continue
        first = _buffer(builder, tree, rank)
        builder.copy(rank, inp(0), scr(first))
        for child in tree.children[rank]:
            at = first + int(tree.index[child] - tree.index[rank])
            builder.recv(rank, child, scr(at, int(tree.size[child])))
        if parent != root:
            builder.send(rank, parent, scr(first, int(tree.size[rank])))
            continue
        for i, _, count in runs(_subtree(tree, rank)):
            builder.send(rank, root, scr(first + i, count))
    for child in tree.children[root]:
        for _, block, count in runs(_subtree(tree, child)):
            builder.recv(root, child, out(block, count))


def scatter(builder: ScheduleBuilder, tree: Tree) -> None:
    """Take everybody's block from the root's INPUT to its OUTPUT."""
    root = tree.root
    for child in reversed(tree.children[root]):
        for _, block, count in runs(_subtree(tree, child)):
            builder.send(root, child, inp(block, count))
    builder.copy(root, inp(root), out(0))
    for rank in tree.preorder[1:].tolist():
        parent = int(tree.parent[rank])
        if tree.size[rank] == 1:
            builder.recv(rank, parent, out(0))
            continue
        first = _buffer(builder, tree, rank)
        pieces = runs(_subtree(tree, rank)) if parent == root else [(0, rank, int(tree.size[rank]))]
        for i, _, count in pieces:
            builder.recv(rank, parent, scr(first + i, count))
        for child in reversed(tree.children[rank]):
            at = first + int(tree.index[child] - tree.index[rank])
            builder.send(rank, child, scr(at, int(tree.size[child])))
        builder.copy(rank, scr(first), out(0))
