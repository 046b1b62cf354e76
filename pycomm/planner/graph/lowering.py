"""Forests to schedules: who sends which chunks when, so that the links carry exactly what the forest says.

::

      root's data, weight 3 + 2, pieces = 2              time steps of a tree of height 2

      | tree 0  | tree 1 | tree 0  | tree 1 |            step  1  2  3
      | chunks  |        |         |        |            1st slab moves one edge down per step: 1, 2
      | 0 1 2   | 3 4    | 5 6 7   | 8 9    |            2nd slab follows one step behind:       2, 3
      '----- slab 0 -----'----- slab 1 -----'

The data of each root are cut into *slabs*, a slab into chunks, one per unit of weight, so that a tree of
weight m carries spans of m chunks: one message per edge and slab, exactly its share. A slab that goes down
its tree by one edge per step is followed by the next slab one step behind: the height of the trees is paid
once and not once per slab. What is reduced goes up the tree with the steps in opposite order, the deepest
ranks first. An allreduce has a forest for each way. Both cut the same slabs, each into spans of its own, and
a span goes down as soon as all that it overlaps has come up.

Within a step each rank sends first and then receives what was sent to it in this step. It has sent only what
it received in the steps before. So the programs end if a lane holds the messages of one step, which is the
capacity that the schedule declares.

With W units of weight and P slabs, all roots together have W*P chunks, a block of allgather or reduce_scatter
W*P/n. For each tree of weight m, each rank but the root receives m*P chunks (in a reduction: sends them), and
the longest chain of messages has about height + P - 1. Lowered can be forests whose roots have equal weights
(allgather, reduce_scatter), all weight at the root of the call (broadcast, reduce), or equal weights in both
forests (allreduce; a common factor aside).

A switch that replicates or combines is not made use of: messages lead from rank to rank.

References
----------
L. Zhao et al., "ForestColl: throughput-optimal collective communications on heterogeneous network fabrics",
NSDI 2026, for trees with weights as the form of a schedule. The slabs and the steps are ours.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pycomm.collectives.spec import block_count, equal_form
from pycomm.cost import PlanCost
from pycomm.errors import PlanningError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.columns import Columns, columns_of
from pycomm.planner.graph.forest import Forest
from pycomm.schedule import Schedule
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out
from pycomm.schedule.ir import Space
from pycomm.types import CollectiveKind

__all__ = ["COLLECTIVES", "busiest_of_steps", "cost", "longest_chain", "lower"]

Array = npt.NDArray[np.int64]

COLLECTIVES = (
    CollectiveKind.ALLREDUCE,
    CollectiveKind.ALLGATHER,
    CollectiveKind.REDUCE_SCATTER,
    CollectiveKind.BROADCAST,
    CollectiveKind.REDUCE,
)
"""What forests can perform, and the ragged forms of these."""

STRETCH = 1 / 8
"""How much longer than its busiest rank a schedule may be when the number of pieces is ours to choose."""
MOST_PIECES = 64
MOST_MESSAGES = 1 << 20
"""Pieces are not multiplied beyond this many messages of all ranks together."""
MOST_CELLS = 1 << 27
"""Ranks times chunks that a schedule may have; whoever proves it keeps a number for each."""
SLAB_CELLS = 1 << 24
"""Pieces that are ours to choose are no slabs, but cuts between chunks, beyond this many."""
MOST_EDGES = 1 << 25
"""Trees times ranks."""
MOST_CHANNELS = 16
"""Trees share channels beyond this many."""


class _Strands(NamedTuple):
    """Spans that travel as one message each: tree, first chunk, number, the step before the first message."""

    tree: Array
    chunk: Array
    length: Array
    start: Array


class _Messages(NamedTuple):
    """One row per strand and edge: rows of the same step in the order in which both ends perform them."""

    edge: Array
    base: Array
    """Row of the strand's first edge."""
    strand: Array
    step: Array
    src: Array
    dst: Array


class _Half(NamedTuple):
    """What moves one way along one forest."""

    shape: Columns
    strands: _Strands
    messages: _Messages


class _Plan(NamedTuple):
    """All that the schedule is made of. ``blocks`` is the first chunk of each rank's own data."""

    pieces: int
    blocks: Array
    up: _Half | None
    down: _Half | None


def lower(request: PlanRequest, *forests: Forest, name: str = "tree_packing", channels: int = 0) -> Schedule:
    """Make the schedule that moves the data of a collective along forests.

    Parameters
    ----------
    request
        The collective, one of ``COLLECTIVES`` or ragged. ``pieces`` is the number of slabs; 0 chooses it such
        that height costs little.
    forests
        allgather, broadcast: one on the network. reduce_scatter, reduce: one on the network reversed.
        allreduce: first the one on the network reversed, then the other; each root has equal parts of the
        weights of both.
    name
        Name of the schedule.
    channels
        How many channels the trees share, at most; 0 means 16.

    Raises
    ------
    PlanningError
        The forests do not fit the collective, or have too fine weights.
    """
    if request.nranks == 1:
        builder = ScheduleBuilder(request, name)
        whole = block_count(request.kind, 1)
        builder.copy(0, inp(0, whole), out(0, whole))
        return builder.finish()
    plan = _plan(request, forests)
    halves = [half for half in (plan.up, plan.down) if half is not None]
    lanes = min(channels or MOST_CHANNELS, max(half.shape.root.size for half in halves))
    nblocks = block_count(request.kind, request.nranks)
    builder = ScheduleBuilder(
        request, name, pieces=plan.pieces * int(plan.blocks[-1]) // nblocks, channels=lanes
    )
    kind = equal_form(request.kind)
    own = plan.blocks[:-1] * plan.pieces if nblocks > 1 else np.zeros(request.nranks, np.int64)
    if kind is CollectiveKind.BROADCAST:
        builder.copy(request.root, inp(0, builder.pieces), out(0, builder.pieces))
    elif kind is CollectiveKind.ALLGATHER:
        rank = np.arange(request.nranks)
        builder.copy(rank, inp(0, builder.pieces), out(rank * builder.pieces, builder.pieces))
    if plan.up is not None:
        _emit_up(builder, plan.up, own)
    if plan.down is not None:
        space = Space.OUTPUT if kind is CollectiveKind.ALLREDUCE else Space.INPUT
        _emit_down(builder, plan.down, own, space)
    return builder.finish(_capacity(halves, request.nranks, lanes))


def cost(request: PlanRequest, *forests: Forest) -> PlanCost:
    """Count what :func:`lower` would make, without making it; parameters and errors are the same.

    ``fill`` is how far the sum over all steps of what the busiest rank moves in them exceeds what the busiest
    rank moves in all.
    """
    n = request.nranks
    if n == 1:
        return PlanCost(0, 0, 0, 0, 0)
    plan = _plan(request, forests)
    halves = [half for half in (plan.up, plan.down) if half is not None]
    count = np.concatenate([h.strands.length[h.messages.strand] for h in halves])
    src = np.concatenate([h.messages.src for h in halves])
    dst = np.concatenate([h.messages.dst for h in halves])
    step = np.concatenate([h.messages.step for h in halves])
    sent, received = (np.bincount(ends, count, n).astype(np.int64) for ends in (src, dst))
    reduced = 0
    if plan.up is not None:
        up = plan.up
        reduced = int(np.bincount(up.messages.dst, up.strands.length[up.messages.strand], n).max())
    busiest = int(max(sent.max(), received.max()))
    far = -1
    if request.hosts:
        host = np.array(request.hosts, np.int64)
        leaving = host[src] != host[dst]
        far = int(np.bincount(host[src[leaving]], count[leaving], 1).max())
    return PlanCost(
        steps=longest_chain(step, src, dst, n),
        sent=int(sent.max()),
        received=int(received.max()),
        total=int(count.sum()),
        reduced=reduced,
        messages=int(max(np.bincount(src, minlength=n).max(), np.bincount(dst, minlength=n).max())),
        fill=busiest_of_steps(step, src, dst, count, n) - busiest,
        pieces=plan.pieces * int(plan.blocks[-1]) // block_count(request.kind, n),
        far=far,
    )


def _plan(request: PlanRequest, forests: tuple[Forest, ...]) -> _Plan:
    kind = equal_form(request.kind)
    shapes = _shapes(request, kind, forests)
    n = request.nranks
    blocks = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(shapes[0].root, shapes[0].weight, n).astype(np.int64), out=blocks[1:])
    slabs, cuts = _pieces(request, shapes, int(blocks[-1]))
    up = down = None
    ready = None
    if kind in (CollectiveKind.ALLREDUCE, CollectiveKind.REDUCE, CollectiveKind.REDUCE_SCATTER):
        shape = shapes[0]
        strands = _strands(shape, blocks, slabs, cuts)
        up = _Half(shape, strands, _messages(shape, strands, up=True))
        order = np.argsort(strands.chunk)
        ready = np.repeat((strands.start + shape.height[strands.tree])[order], strands.length[order])
    if up is None or kind is CollectiveKind.ALLREDUCE:
        shape = shapes[-1]
        strands = _strands(shape, blocks, slabs, cuts)
        if ready is not None:
            order = np.argsort(strands.chunk)
            start = np.empty_like(strands.start)
            start[order] = np.maximum.reduceat(ready, strands.chunk[order])
            strands = strands._replace(start=start)
        down = _Half(shape, strands, _messages(shape, strands, up=False))
    return _Plan(slabs, blocks, up, down)


def _shapes(request: PlanRequest, kind: CollectiveKind, forests: tuple[Forest, ...]) -> list[Columns]:
    """Check that the forests fit the request, and make their weights alike and as small as possible."""
    problem = _misfit(request, kind, forests) or _misfit_of_roots(request, kind, forests)
    if problem:
        raise PlanningError(f"cannot lower forests: {problem}")
    shapes = [columns_of(forest) for forest in forests]
    totals = [int(shape.weight.sum()) for shape in shapes]
    common = math.lcm(*totals)
    factors = [common // total for total in totals]
    divisor = math.gcd(*(int(np.gcd.reduce(s.weight)) * f for s, f in zip(shapes, factors, strict=True)))
    pieces = request.pieces or 1
    if common // divisor * pieces * request.nranks > MOST_CELLS:
        raise PlanningError(
            f"cannot lower forests: {common // divisor} units of weight in {pieces} pieces on "
            f"{request.nranks} ranks are more than {MOST_CELLS} chunks; use fewer pieces, or a smaller k"
        )
    return [
        shape._replace(weight=(shape.weight.astype(object) * factor // divisor).astype(np.int64))
        for shape, factor in zip(shapes, factors, strict=True)
    ]


def _misfit(request: PlanRequest, kind: CollectiveKind, forests: tuple[Forest, ...]) -> str:
    n, needed = request.nranks, 2 if kind is CollectiveKind.ALLREDUCE else 1
    if kind not in COLLECTIVES:
        return f"trees cannot perform {request.kind.label}"
    if len(forests) != needed:
        return f"{request.kind.label} takes {needed} forests, got {len(forests)}"
    for forest in forests:
        if forest.network.nranks != n:
            return f"a forest spans {forest.network.nranks} ranks instead of {n}"
        if not len(forest.trees):
            return "a forest has no tree"
        if len(forest.trees) * n > MOST_EDGES:
            return (
                f"{len(forest.trees)} trees on {n} ranks are too many for one table: the product may be at "
                f"most {MOST_EDGES}; use a hierarchical algorithm"
            )
    return ""


def _misfit_of_roots(request: PlanRequest, kind: CollectiveKind, forests: tuple[Forest, ...]) -> str:
    roots = [forest.roots() for forest in forests]
    low, high = int(roots[0].min()), int(roots[0].max())
    if kind in (CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER):
        return f"{kind.label} needs equal weights at all roots, got {low} to {high}" if low != high else ""
    if kind.is_rooted:
        others = np.delete(roots[0], request.root).any()
        return f"{kind.label} from root {request.root} has trees with other roots" if others else ""
    up, down = (
        np.array([int(weight) for weight in found], object) * int(other.sum())
        for found, other in (roots, roots[::-1])
    )
    unlike = np.flatnonzero(up != down)
    if unlike.size:
        rank = int(unlike[0])
        shares = (f"{roots[half][rank]}/{roots[half].sum()}" for half in (0, 1))
        return "rank {} is the root of {} of the data up but of {} down".format(rank, *shares)
    return ""


def _pieces(request: PlanRequest, shapes: list[Columns], weight: int) -> tuple[int, int]:
    """Choose how many slabs there are, and into how many messages a tree's span of a slab is cut.

    Cuts are for weights so fine that slabs would make too many chunks.
    """
    if request.pieces:
        return request.pieces, 1
    moved = busy = edges = 0
    for shape in shapes:
        load = np.repeat(shape.weight, np.diff(shape.first))
        moved += busiest_of_steps(shape.depth, shape.parent, shape.child, load, request.nranks)
        edges += load.size
        busy += int(
            max(
                np.bincount(shape.parent, load, request.nranks).max(),
                np.bincount(shape.child, load, request.nranks).max(),
            )
        )
    wanted = math.ceil((moved / busy - 1) / STRETCH)
    wanted = max(1, min(wanted, MOST_PIECES, MOST_MESSAGES // edges))
    slabs = min(wanted, max(1, SLAB_CELLS // (weight * request.nranks)))
    return slabs, -(-wanted // slabs)


def busiest_of_steps(step: Array, src: Array, dst: Array, load: Array, nranks: int) -> int:
    """Add up, over all steps, what the busiest rank sends or receives in them."""
    busiest = np.zeros(int(step.max()) + 1)
    for rank in (src, dst):
        moved = np.bincount(step * nranks + rank, load, busiest.size * nranks)
        np.maximum(busiest, moved.reshape(-1, nranks).max(axis=1), out=busiest)
    return int(busiest.sum())


def _strands(shape: Columns, blocks: Array, slabs: int, cuts: int) -> _Strands:
    """Lay the spans of all trees out: by root, by slab, by tree."""
    order = np.argsort(shape.root, kind="stable")
    before = np.empty_like(shape.weight)
    before[order] = np.cumsum(shape.weight[order]) - shape.weight[order]
    before -= blocks[shape.root]
    slab = np.arange(slabs)[:, None]
    whole = blocks[shape.root + 1] - blocks[shape.root]
    chunk = (blocks[shape.root] * slabs + slab * whole + before).reshape(-1)
    tree = np.tile(np.arange(shape.root.size), slabs)
    weight = np.tile(shape.weight, slabs)
    parts = np.minimum(weight, cuts)
    strand = np.repeat(np.arange(tree.size), parts)
    part = np.arange(strand.size) - np.repeat(np.cumsum(parts) - parts, parts)
    low, high = (weight[strand] * (part + more) // parts[strand] for more in (0, 1))
    start = np.repeat(np.arange(slabs), shape.root.size)[strand] * cuts + part
    return _Strands(tree[strand], chunk[strand] + low, high - low, start)


def _messages(shape: Columns, strands: _Strands, *, up: bool) -> _Messages:
    number = np.diff(shape.first)[strands.tree]
    strand = np.repeat(np.arange(number.size), number)
    base = np.repeat(np.cumsum(number) - number, number)
    edge = shape.first[strands.tree][strand] + np.arange(strand.size) - base
    height = shape.height[strands.tree][strand]
    turn = height + 1 - shape.depth[edge] if up else shape.depth[edge]
    ends = shape.parent[edge], shape.child[edge]
    src, dst = ends[::-1] if up else ends
    return _Messages(edge, base, strand, strands.start[strand] + turn, src, dst)


def _capacity(halves: list[_Half], nranks: int, lanes: int) -> int:
    """Most messages on one lane in one step."""
    steps = 1 + max(int(half.messages.step.max()) for half in halves)
    keys = []
    for _, strands, rows in halves:
        lane = (rows.src * nranks + rows.dst) * lanes + strands.tree[rows.strand] % lanes
        keys.append(lane * steps + rows.step)
    return int(np.unique(np.concatenate(keys), return_counts=True)[1].max())


def longest_chain(step: Array, src: Array, dst: Array, nranks: int) -> int:
    """Messages on the longest chain of messages that wait for one another, in program order."""
    order = np.argsort(step, kind="stable")
    src, dst = src[order], dst[order]
    at = np.zeros(nranks, np.int64)
    ends = np.flatnonzero(np.diff(step[order], append=-1)) + 1
    begin = 0
    for end in ends.tolist():
        np.maximum.at(at, dst[begin:end], at[src[begin:end]] + 1)
        begin = end
    return int(at.max())


def _channels(builder: ScheduleBuilder, half: _Half) -> Array:
    return half.strands.tree[half.messages.strand] % builder.channels


def _emit_down(builder: ScheduleBuilder, half: _Half, own: Array, root_space: Space) -> None:
    """Send strands from their roots, who have them in ``root_space``, into everybody's OUTPUT."""
    shape, strands, rows = half
    chunk, count = strands.chunk[rows.strand], strands.length[rows.strand]
    channel = _channels(builder, half)
    from_root = shape.above[rows.edge] < 0
    space = np.where(from_root, int(root_space), int(Space.OUTPUT))
    start = chunk - np.where(from_root & (root_space is Space.INPUT), own[rows.src], 0)
    builder.send(rows.src, rows.dst, Place(space, start, count), channel=channel, when=2 * rows.step)
    builder.recv(rows.dst, rows.src, out(chunk, count), channel=channel, when=2 * rows.step + 1)


def _emit_up(builder: ScheduleBuilder, half: _Half, own: Array) -> None:
    """Combine strands from everybody's INPUT into the OUTPUT of their roots.

    Partial sums lie in OUTPUT where all of it will be overwritten by what depends on them (allreduce), in
    INPUT where the caller gave it away (reduce_scatter in place), else in slots of their own: nothing tells a
    rank when its parent has read them.
    """
    shape, strands, rows = half
    request, kind = builder.request, equal_form(builder.request.kind)
    chunk, count = strands.chunk[rows.strand], strands.length[rows.strand]
    channel = _channels(builder, half)
    held_start = chunk.copy()  # of the sum that the child of the edge sends
    held_space = np.full(chunk.size, int(Space.INPUT))
    inner = shape.inner[rows.edge]
    if kind is CollectiveKind.ALLREDUCE:
        held_space[inner] = Space.OUTPUT
    elif kind is not CollectiveKind.REDUCE_SCATTER or not request.in_place:
        held_space[inner] = Space.SCRATCH
        held_start[inner] = builder.scratch_spans(rows.src[inner], chunk[inner], count[inner])
    above = shape.above[rows.edge]
    to_root = above < 0
    over = rows.base + above - shape.first[strands.tree[rows.strand]]  # row of the edge above
    over[to_root] = 0
    sum_space = np.where(to_root, int(Space.OUTPUT), held_space[over])
    sum_start = np.where(to_root, chunk - own[rows.dst], held_start[over])
    eldest = shape.eldest[rows.edge]
    first = Place(np.where(eldest, int(Space.INPUT), sum_space), np.where(eldest, chunk, sum_start), count)
    held, total = Place(held_space, held_start, count), Place(sum_space, sum_start, count)
    builder.send(rows.src, rows.dst, held, channel=channel, when=2 * rows.step)
    builder.recv_reduce(rows.dst, rows.src, first, total, channel=channel, when=2 * rows.step + 1)
