r"""Double binary tree: two trees carry half the data each, and who works in one only listens in the other.

::

      first tree, 1..7                second tree: the first one mirrored (n even) or moved on by one (n odd)
              4                               5
            /   \                           /   \
           2     6                         3     7        odd numbers are leaves of the first tree,
          / \   / \                       / \   / \       even ones of the second (1 may be a leaf of both)
         1   3 5   7                     2   4 6   1

One binary tree leaves the links of its leaves, half of all ranks, idle in one direction. Two trees in which
no rank has children twice use them all: every rank sends and receives about the size of the array, in pieces,
while the depth stays logarithmic. Allreduce puts all n ranks in both trees; broadcast and reduce put the n-1
others in and the root above both.

With P pieces per tree (4 unless the request says), 2P chunks in all:

==========  ====================  ================================  =========================
collective  steps                 chunks sent by the busiest rank   remark
==========  ====================  ================================  =========================
allreduce   2 floor(log2 n)       4P; 3P when n = 3, 2P when n = 2  up and down both trees
broadcast   1 + floor(log2(n-1))  2P                                received: 2P
reduce      1 + floor(log2(n-1))  2P                                received and combined: 2P
==========  ====================  ================================  =========================

Best for middle sizes on many ranks: bandwidth as a ring's, steps as a tree's. A rank's program deals with the
tree that reaches it first to the end, so that one tree never waits for the other; a channel has to hold P
messages.

References
----------
P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast,
reduction and scan", Parallel Computing 35(12), 2009.
"""

from __future__ import annotations

from pycomm.planner import trees
from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.schedule import Schedule
from pycomm.schedule.builder import ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["PLANNER", "binary_tree"]

DEFAULT_PIECES = 4
"""Pieces per tree when the request leaves the choice to the planner."""


def binary_tree(n: int) -> tuple[int, dict[int, list[int]]]:
    """Make the first tree over 1..n: its top, and the children of each number.

    The top is the largest power of two; a perfect tree stands on its left and what remains, moved by the top,
    on its right. So a number's distance to its children is a power of two below its own, and odd numbers have
    none.
    """
    children: dict[int, list[int]] = {}

    def grow(low: int, size: int) -> int:
        top = 1 << (size.bit_length() - 1)
        right = [grow(low + top, size - top)] if size > top else []
        left = [grow(low, top - 1)] if top > 1 else []
        children[low + top] = right + left
        return low + top

    return grow(0, n), children


def _second(x: int, n: int) -> int:
    """Who stands in the second tree where ``x`` stands in the first."""
    return n + 1 - x if n % 2 == 0 else x % n + 1


def _trees(n: int) -> list[trees.Tree]:
    """Both trees over all ranks; rank r is number r + 1."""
    top, children = binary_tree(n)
    made = []
    for stand in (lambda x: x, lambda x: _second(x, n)):
        listed: list[list[int]] = [[]] * n
        for x, below in children.items():
            listed[stand(x) - 1] = [stand(y) - 1 for y in below]
        made.append(trees.Tree(stand(top) - 1, listed))
    return made


def _rooted_trees(n: int, root: int) -> list[trees.Tree]:
    """Both trees over the others, the root above each; the j-th rank after the root is number j."""
    made = []
    for below in _trees(n - 1):
        listed: list[list[int]] = [[]] * n
        listed[root] = [(root + below.root + 1) % n]
        for rank, children in enumerate(below.children):
            listed[(root + rank + 1) % n] = [(root + child + 1) % n for child in children]
        made.append(trees.Tree(root, listed))
    return made


def _pieces(request: PlanRequest) -> int:
    return request.pieces or DEFAULT_PIECES


def _plan(request: PlanRequest) -> Schedule:
    pieces = _pieces(request)
    builder = ScheduleBuilder(request, "double_tree", pieces=2 * pieces, channels=2)
    if request.kind is CollectiveKind.ALLREDUCE:
        pair, flow = _trees(request.nranks), trees.allreduce
    else:
        pair = _rooted_trees(request.nranks, request.root)
        flow = trees.reduce if request.kind is CollectiveKind.REDUCE else trees.broadcast
    if request.kind is CollectiveKind.BROADCAST:
        builder.copy(request.root, inp(0, 2 * pieces), out(0, 2 * pieces))
    for piece in range(pieces):  # piece by piece, so that a rank above both trees feeds both evenly
        for channel, tree in enumerate(pair):
            chunk = channel * pieces + piece
            flow(builder, tree, range(chunk, chunk + 1), channel=channel)
    return builder.finish(pieces)


def _cost(request: PlanRequest) -> PlanCost:
    n, pieces = request.nranks, _pieces(request)
    if request.kind is CollectiveKind.ALLREDUCE:
        steps = 2 * (n.bit_length() - 1)
        busiest = min(n, 4) * pieces
        total, reduced = 4 * (n - 1) * pieces, min(n - 1, 2) * pieces
        return PlanCost(steps, busiest, busiest, total, reduced, busiest, steps - 1, 2 * pieces)
    steps, whole = (n - 1).bit_length(), 2 * pieces
    reduced = whole if request.kind is CollectiveKind.REDUCE else 0
    return PlanCost(steps, whole, whole, (n - 1) * whole, reduced, whole, steps - 1, whole)


PLANNER = Algorithm(
    "double_tree",
    {
        CollectiveKind.ALLREDUCE: Form(_plan, _cost),
        CollectiveKind.BROADCAST: Form(_plan, _cost),
        CollectiveKind.REDUCE: Form(_plan, _cost),
    },
)
