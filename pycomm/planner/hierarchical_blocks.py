"""The two-level collectives that move blocks; picture and formulas: :mod:`pycomm.planner.hierarchical`.

Blocks of a host, or of a host's shard, that lie next to each other travel as one message; where ranks of
several hosts alternate, as one message per run of neighbours. So nothing is packed but for alltoall.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.hosts import Hosts, Runs
from pycomm.planner.trees import runs
from pycomm.schedule import Schedule, Space
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out, scr

__all__ = [
    "allgather",
    "allgather_cost",
    "alltoall",
    "alltoall_cost",
    "longest_split",
    "reduce_scatter",
    "reduce_scatter_cost",
]

NAME = "hierarchical"
Array = npt.NDArray[np.int64]


class _Shards:
    """The shards of all hosts, their runs, and their owners; shard (h, j) has number h * shards + j."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts
        groups = [hosts.shard(h, j) for h in range(hosts.count) for j in range(hosts.shards)]
        self.blocks = np.array([group.size for group in groups], np.int64).reshape(hosts.count, hosts.shards)
        self.runs = Runs(groups)
        self.owner: Array = hosts.members[:, : hosts.shards].reshape(-1)
        self.host, self.shard = hosts.host[self.owner], hosts.local[self.owner]
        self.after = hosts.members[(self.host + 1) % hosts.count, self.shard]
        self.before = hosts.members[(self.host - 1) % hosts.count, self.shard]

    def number(self, host: Array, shard: Array) -> Array:
        """Give the number of a shard, hosts counted in a circle."""
        found: Array = host % self.hosts.count * self.hosts.shards + shard
        return found

    def capacity(self) -> int:
        """Messages that one owner may hand on to one neighbour before that takes the first."""
        per_shard = self.runs.number.reshape(self.hosts.count, self.hosts.shards)
        return max(1, int(per_shard.sum(axis=0).max()))


def _inside(hosts: Hosts, ranks: Array, step: int) -> Array:
    """Those of ``ranks`` whose host has a rank ``step`` places further."""
    return ranks[step < hosts.sizes[hosts.host[ranks]]]


def allgather(request: PlanRequest) -> Schedule:
    """Plan an allgather."""
    hosts = Hosts(request)
    shards = _Shards(hosts)
    builder = ScheduleBuilder(request, NAME)
    everyone, largest = np.arange(request.nranks), int(hosts.sizes.max())
    for t in range(1, largest):
        giver = _inside(hosts, everyone, t)
        builder.send(giver, hosts.neighbour(giver, t), inp(0))
    builder.copy(everyone, inp(0), out(everyone))
    for t in range(1, largest):
        taker = _inside(hosts, everyone, t)
        source = hosts.neighbour(taker, -t)
        builder.recv(taker, source, out(source))
    for t in range(hosts.count - 1):
        i, start, count = shards.runs.of(shards.number(shards.host - t, shards.shard))
        builder.send(shards.owner[i], shards.after[i], out(start, count))
        i, start, count = shards.runs.of(shards.number(shards.host - t - 1, shards.shard))
        builder.recv(shards.owner[i], shards.before[i], out(start, count))
        for step in range(1, largest):
            has = step < hosts.sizes[shards.host[i]]
            giver = shards.owner[i][has]
            builder.send(giver, hosts.neighbour(giver, step), out(start[has], count[has]))
        for step in range(1, largest):
            taker = _inside(hosts, everyone, step)
            source = hosts.neighbour(taker, -step)
            owned = hosts.local[source] < hosts.shards
            taker, source = taker[owned], source[owned]
            passed_on = shards.number(hosts.host[taker] - t - 1, hosts.local[source])
            k, first, length = shards.runs.of(passed_on)
            # taken when the ring is through: it never waits for what neighbours hand on
            builder.recv(taker[k], source[k], out(first, length), when=1)
    return builder.finish(shards.capacity())


def reduce_scatter(request: PlanRequest) -> Schedule:
    """Plan a reduce_scatter: the allgather backwards."""
    hosts = Hosts(request)
    shards = _Shards(hosts)
    builder = ScheduleBuilder(request, NAME, channels=2)
    g, largest = hosts.count, int(hosts.sizes.max())
    everyone = np.arange(request.nranks)
    partial = _PartialSums(builder, shards)
    # Everybody gives: to the owners inside, all blocks of other hosts; to each neighbour, the neighbour's own
    # block, unless this rank owns its shard and has yet to hear what the other hosts say about it.
    for step in range(1, largest):
        giver = _inside(hosts, everyone, step)
        target = hosts.neighbour(giver, step)
        late = (hosts.local[target] >= hosts.shards) & (
            hosts.local[target] % hosts.shards == hosts.local[giver]
        )
        builder.send(giver[~late], target[~late], inp(target[~late]), channel=1)
        owned = hosts.local[target] < hosts.shards
        for t in range(g - 1):
            k, start, count = shards.runs.of(
                shards.number(hosts.host[target[owned]] - t - 1, hosts.local[target[owned]])
            )
            builder.send(giver[owned][k], target[owned][k], inp(start, count))
    for step in range(1, largest):
        for t in range(g - 1):
            i, start, count = shards.runs.of(shards.number(shards.host - t - 1, shards.shard))
            has = step < hosts.sizes[shards.host[i]]
            taker, held = shards.owner[i][has], partial(shards.owner[i][has], start[has], count[has])
            own = inp(start[has], count[has]) if step == 1 else held
            builder.recv_reduce(taker, hosts.neighbour(taker, -step), own, held)
    for t in range(g - 1):
        i, start, count = shards.runs.of(shards.number(shards.host - t - 1, shards.shard))
        rank = shards.owner[i]
        first = (hosts.sizes[shards.host[i]] == 1) & (t == 0)
        held = partial(rank, start, count)
        space, at = np.where(first, Space.INPUT, held.space), np.where(first, start, held.start)
        builder.send(rank, shards.after[i], Place(space, at, count))
        i, start, count = shards.runs.of(shards.number(shards.host - t - 2, shards.shard))
        rank = shards.owner[i]
        held = partial(rank, start, count)
        fresh = (hosts.sizes[shards.host[i]] == 1) | (t == g - 2)
        space, at = np.where(fresh, Space.INPUT, held.space), np.where(fresh, start, held.start)
        builder.recv_reduce(rank, shards.before[i], Place(space, at, count), held)
    _deliver(builder, shards, partial)
    return builder.finish(shards.capacity())


class _PartialSums:
    """Where owners keep partial sums: in INPUT itself when in place, else in scratch, one slot per block."""

    def __init__(self, builder: ScheduleBuilder, shards: _Shards) -> None:
        self.in_place = builder.request.in_place
        n, hosts = builder.request.nranks, shards.hosts
        self.slot: Array = np.zeros((n, n) if not self.in_place and hosts.count > 1 else (0, 0), np.int64)
        if self.slot.size:
            for j in range(hosts.shards):
                held = np.flatnonzero(hosts.local % hosts.shards == j)
                for rank in hosts.members[:, j].tolist():
                    builder.scratch(rank, held)
                    self.slot[rank, held] = np.arange(held.size)

    def __call__(self, rank: Array, start: Array, count: Array) -> Place:
        """Place of blocks ``start`` .. ``start + count`` of a shard that ``rank`` owns."""
        if self.in_place:
            return Place(np.full_like(start, Space.INPUT), start, count)
        return Place(np.full_like(start, Space.SCRATCH), self.slot[rank, start], count)


def _deliver(builder: ScheduleBuilder, shards: _Shards, partial: _PartialSums) -> None:
    """Last stage of reduce_scatter: what neighbours said about one's own block, and what its owner brings."""
    hosts = shards.hosts
    everyone = np.arange(builder.request.nranks)
    owns = hosts.local < hosts.shards
    one = np.ones(1, np.int64)
    if hosts.count > 1:
        late = everyone[~owns]
        owner = hosts.members[hosts.host[late], hosts.local[late] % hosts.shards]
        builder.send(owner, late, partial(owner, late, one), channel=1)
        alone = everyone[owns & (hosts.sizes[hosts.host] == 1)]
        builder.copy(alone, partial(alone, alone, one), out(0))
    for step in range(1, int(hosts.sizes.max())):
        taker = _inside(hosts, everyone, step)
        source = hosts.neighbour(taker, -step)
        from_owner = ~owns[taker] & (hosts.local[taker] % hosts.shards == hosts.local[source])
        # An owner's message comes last, so the first to add to is the next neighbour's if there is one.
        nearest = hosts.neighbour(taker, -1)
        waits = ~owns[taker] & (hosts.local[taker] % hosts.shards == hosts.local[nearest])
        first = step == np.where(waits & (hosts.sizes[hosts.host[taker]] > 2), 2, 1)
        space, at = np.full_like(taker, Space.INPUT), taker
        if hosts.count > 1:
            held = partial(taker, taker, one)
            space, at = np.where(owns[taker], held.space, space), np.where(owns[taker], held.start, at)
        own = Place(np.where(first, space, Space.OUTPUT), np.where(first, at, 0))
        builder.recv_reduce(taker, source, own, out(0), channel=1, when=from_owner.astype(np.int64))


def alltoall(request: PlanRequest) -> Schedule:
    """Plan an alltoall."""
    hosts, n = Hosts(request), request.nranks
    builder = ScheduleBuilder(request, NAME)
    order = np.argsort(hosts.host, kind="stable")  # ranks host by host
    cut = Runs([hosts.ranks(h) for h in range(hosts.count)])
    for rank in range(n):
        _alltoall_program(builder, hosts, rank, order, cut)
    return builder.finish(int(cut.number.max()) if hosts.count > 1 else 1)


def _alltoall_program(
    builder: ScheduleBuilder,
    hosts: Hosts,
    rank: int,
    order: Array,
    cut: Runs,
) -> None:
    n, h = hosts.host.size, int(hosts.host[rank])
    size, me = int(hosts.sizes[h]), int(hosts.local[rank])
    inside = hosts.ranks(h)
    number = hosts.local[order] % size
    mine = order[number == me]  # the ranks that this one sends to for its host
    # Exchange buffer: for each of them, the blocks of all ranks of this host.
    exchange = int(builder.scratch(rank, (inside * n + mine[:, None]).reshape(-1)))
    builder.copy(rank, inp(mine), scr(exchange + np.arange(mine.size) * size + me))
    if size > 1:
        by_number = np.argsort(number, kind="stable")
        by_number = by_number[number[by_number] != me]
        packed = int(builder.scratch(rank, rank * n + order[by_number]))
        builder.copy(rank, inp(order[by_number]), scr(packed + np.arange(by_number.size)))
        counts = np.delete(np.bincount(number, minlength=size), me)
        starts = packed + np.cumsum(counts) - counts
        others = np.delete(inside, me)
        turn = (np.arange(size - 1) + me) % (size - 1)  # not everybody to the first rank at once
        builder.send(rank, others[turn], scr(starts[turn], counts[turn]))
        landed = int(builder.scratch(rank, (others[:, None] * n + mine).reshape(-1)))
        back = turn[::-1]
        builder.recv(rank, others[back], scr(landed + back * mine.size, np.full(size - 1, mine.size)))
        position = np.delete(np.arange(size), me)
        target = exchange + np.arange(mine.size) * size + position[:, None]
        builder.copy(rank, scr(landed + np.arange(others.size * mine.size)), scr(target.reshape(-1)))
    turn = (np.arange(mine.size) + h + 1) % mine.size
    _, first, count = cut.of(np.array([h]))
    start = (exchange + turn[:, None] * size + np.cumsum(count) - count).reshape(-1)
    peer, own = np.repeat(mine[turn], count.size), np.repeat(mine[turn] == rank, count.size)
    first, count = np.tile(first, mine.size), np.tile(count, mine.size)
    builder.send(rank, peer[~own], scr(start[~own], count[~own]))
    builder.copy(rank, scr(start[own], count[own]), out(first[own], count[own]))
    far = (h - np.arange(1, hosts.count)) % hosts.count
    source = hosts.members[far, me % hosts.sizes[far]]
    i, first, count = cut.of(far)
    builder.recv(rank, source[i], out(first, count))


def longest_split(request: PlanRequest) -> int:
    """Messages that a subtree of hosts may have to be cut into on its way to or from the root."""
    hosts = Hosts(request)
    tree = hosts.tree(request.root)
    cuts = [1]
    for child in tree.children[request.root]:
        first = tree.index[child]
        cuts.append(len(runs(tree.preorder[first : first + tree.size[child]])))
    return max(cuts)


def allgather_cost(request: PlanRequest) -> PlanCost:
    """Evaluate the formulas of :func:`allgather`."""
    hosts, n = Hosts(request), request.nranks
    g, sizes = hosts.count, hosts.sizes
    inside = (sizes > 1).astype(np.int64)
    steps = 1
    if g > 1:  # a chain that starts at a host goes round to the one before it
        steps = g - 1 + int((inside + np.roll(inside, -1)).max())
    shards = _Shards(hosts)
    moved = shards.blocks.sum(axis=0)
    ring = moved - np.roll(shards.blocks, -1, axis=0)
    handed = (sizes[:, None] - 1) * (moved - shards.blocks)
    sent = int((sizes[:, None] - 1 + (ring + handed if g > 1 else 0)).max())
    number = shards.runs.number.reshape(g, -1)
    passed = number.sum(axis=0) - number
    messages = int((sizes[:, None] - 1 + sizes[:, None] * passed).max())
    far = int(ring.sum(axis=1).max()) if g > 1 else 0
    return PlanCost(steps, sent, n - 1, n * (n - 1), 0, messages, far_steps=g - 1, far=far)


def reduce_scatter_cost(request: PlanRequest) -> PlanCost:
    """Evaluate the formulas of :func:`reduce_scatter`."""
    hosts = Hosts(request)
    back = allgather_cost(request)
    inside = (hosts.sizes > 1).astype(np.int64)
    steps = 1
    if hosts.count > 1:
        last = (hosts.sizes > hosts.shards).astype(np.int64)
        steps = hosts.count - 1 + int((last + np.roll(inside, -1)).max())
    shards = _Shards(hosts)
    received = hosts.sizes - 1
    if hosts.count > 1:
        moved = shards.blocks.sum(axis=0)
        through = (
            (hosts.sizes[:, None] - 1) * (moved - shards.blocks) + moved - np.roll(shards.blocks, 1, axis=0)
        )
        received = received[:, None] + through
    most = int(received.max())
    far_steps = hosts.count - 1
    return PlanCost(
        steps, back.received, most, back.total, most, back.messages, far_steps=far_steps, far=back.far
    )


def alltoall_cost(request: PlanRequest) -> PlanCost:
    """Evaluate the formulas of :func:`alltoall`."""
    hosts, n = Hosts(request), request.nranks
    sent = received = total = messages = 0
    for size in np.unique(hosts.sizes).tolist():
        alike = int((hosts.sizes == size).sum())
        targets = np.bincount(hosts.local % size, minlength=size)
        each = n - targets + size * (targets - 1)
        sent = max(sent, int(each.max()))
        received = max(received, int(((size - 1) * targets + n - size).max()))
        total += alike * int(each.sum())
        messages = max(messages, size - 1 + max(int(targets.max()) - 1, hosts.count - 1))
    steps = 1 if hosts.count == 1 else 1 + int(hosts.sizes.max() > 1)
    far = int((hosts.sizes * (n - hosts.sizes)).max())
    return PlanCost(steps, sent, received, total, 0, messages, far_steps=int(hosts.count > 1), far=far)
