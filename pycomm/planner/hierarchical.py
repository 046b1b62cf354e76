"""Two levels: fast links inside hosts do what they can, so that slow links between hosts carry little.

::

      host 0:  0 1 2        host 1:  3 4        host 2:  5 6 7        shards = 2, the ranks of the
               | |                   | |                 | |          smallest host
      shard 0  0 . . . . . . . . . . 3 . . . . . . . . . 5            its owners: the first of each host
      shard 1    1 . . . . . . . . . . 4 . . . . . . . . . 6          the second of each host

- allreduce. Inside: each owner combines its shard of its host's arrays. Between: the owners of a shard run a
  ring allreduce over hosts. Inside: owners hand their shards out.
- allgather. Inside: everybody sends its block to its host. Between: the owners of a shard pass the hosts'
  blocks round and hand on what comes. reduce_scatter: the same backwards, adding.
- alltoall. Inside: blocks for far ranks go to the local rank that has their target's number. Between: it
  sends what its whole host has for each far rank with its number.
- broadcast, reduce, gather, scatter, barrier. One tree: binomial over hosts, then binomial inside each host.

Hosts may hold any number of ranks, unequal too, in any order. With g hosts of s_h ranks, S the most
and L the least of these:

==================  ==================================  ================================================
collective          steps (hosts of two or more ranks)  chunks sent by the busiest rank
==================  ==================================  ================================================
allreduce           2(g-1) + 2                          (L-1)g + 2(g-1) + (S-1)g, of gL
allgather           g-1 + 2                             its share of the ring, and s_h-1 times what came
reduce_scatter      g-1 + 1, + 1 if sizes differ        n-1
alltoall            2                                   n-b + s_h(b-1) with b ranks of its number
broadcast           height of the tree: at most         log2 g + log2 S, rounded up each
reduce, gather, ..  log2 g + log2 S                     as in :mod:`pycomm.planner.knomial`
==================  ==================================  ================================================

(the cost functions below have the exact terms, also for hosts with a single rank, which have nothing to do
inside.) Across a host's links go 2(g-1)/g of the array in an allreduce instead of a rank's 2(n-1)/n, spread
over L ranks.

Best whenever a link inside a host is faster than one between hosts and several ranks share a host.

References
----------
R. Rabenseifner, G. Wellein, "Communication and optimization aspects of parallel programming models on hybrid
architectures", Int. J. High Performance Computing Applications 17(1), 2003.
"""

from __future__ import annotations

import numpy as np

from pycomm.planner import hierarchical_blocks as blocks
from pycomm.planner import trees
from pycomm.planner.algorithm import Algorithm, Form
from pycomm.planner.base import PlanCost, PlanRequest
from pycomm.planner.hosts import Hosts
from pycomm.planner.knomial import children_of, height_of
from pycomm.schedule import Schedule, Space
from pycomm.schedule.builder import Place, ScheduleBuilder, inp, out
from pycomm.types import CollectiveKind

__all__ = ["PLANNER"]

NAME = "hierarchical"


def _allreduce(request: PlanRequest) -> Schedule:
    hosts = Hosts(request)
    g, shards = hosts.count, hosts.shards
    builder = ScheduleBuilder(request, NAME, pieces=g * shards)
    everyone = np.arange(request.nranks)
    owner = np.flatnonzero(hosts.local < shards)
    for t in range(1, int(hosts.sizes.max())):
        target = hosts.neighbour(everyone, t)
        hit = (t < hosts.sizes[hosts.host]) & (hosts.local[target] < shards)
        builder.send(everyone[hit], target[hit], inp(hosts.local[target[hit]] * g, g))
    for t in range(1, int(hosts.sizes.max())):
        taker = owner[t < hosts.sizes[hosts.host[owner]]]
        share = hosts.local[taker] * g
        own = inp(share, g) if t == 1 else out(share, g)
        builder.recv_reduce(taker, hosts.neighbour(taker, -t), own, out(share, g))
    _ring(builder, hosts, owner)
    for t in range(1, int(hosts.sizes.max())):
        giver = owner[t < hosts.sizes[hosts.host[owner]]]
        builder.send(giver, hosts.neighbour(giver, t), out(hosts.local[giver] * g, g))
    for t in range(1, int(hosts.sizes.max())):
        source = hosts.neighbour(everyone, -t)
        hit = (t < hosts.sizes[hosts.host]) & (hosts.local[source] < shards)
        builder.recv(everyone[hit], source[hit], out(hosts.local[source[hit]] * g, g))
    return builder.finish()


def _ring(builder: ScheduleBuilder, hosts: Hosts, owner: np.ndarray) -> None:
    """Ring allreduce of each shard over the hosts."""
    g = hosts.count
    h, share = hosts.host[owner], hosts.local[owner] * g
    after, before = (
        hosts.members[(h + 1) % g, hosts.local[owner]],
        hosts.members[(h - 1) % g, hosts.local[owner]],
    )
    own = np.where(hosts.sizes[h] > 1, Space.OUTPUT, Space.INPUT).astype(np.int64)
    for t in range(2 * (g - 1)):
        builder.send(owner, after, Place(own if t == 0 else Space.OUTPUT, share + (h - t) % g))
        chunk = share + (h - t - 1) % g
        if t < g - 1:
            builder.recv_reduce(owner, before, Place(own, chunk), out(chunk))
        else:
            builder.recv(owner, before, out(chunk))


def _flow(request: PlanRequest) -> Schedule:
    """Plan what runs on the tree."""
    pieces = request.pieces or 1 if request.kind in (CollectiveKind.BROADCAST, CollectiveKind.REDUCE) else 1
    builder = ScheduleBuilder(request, NAME, pieces=pieces)
    tree = Hosts(request).tree(max(request.root, 0))
    match request.kind:
        case CollectiveKind.BROADCAST:
            builder.copy(request.root, inp(0, pieces), out(0, pieces))
            trees.broadcast(builder, tree, range(pieces))
        case CollectiveKind.REDUCE:
            trees.reduce(builder, tree, range(pieces))
        case CollectiveKind.GATHER | CollectiveKind.GATHERV:
            trees.gather(builder, tree)
        case CollectiveKind.SCATTER | CollectiveKind.SCATTERV:
            trees.scatter(builder, tree)
        case _:
            trees.allreduce(builder, tree, range(1))
    return builder.finish(
        blocks.longest_split(request) if request.kind.name[:6] in ("GATHER", "SCATTE") else 1
    )


def _allreduce_cost(request: PlanRequest) -> PlanCost:
    hosts = Hosts(request)
    g, shards, largest = hosts.count, hosts.shards, int(hosts.sizes.max())
    inside = (hosts.sizes > 1).astype(np.int64)
    # A chain that starts at host i goes round twice less two hops, and ends two hosts before it.
    steps = 2 if g == 1 else 2 * (g - 1) + int((inside + np.roll(inside, -2)).max())
    sent = (shards - 1) * g + 2 * (g - 1) + (largest - 1) * g
    total = 2 * g * shards * (request.nranks - 1)
    messages = shards - 1 + 2 * (g - 1) + largest - 1
    reduced, rounds = (largest - 1) * g + g - 1, 2 * (g - 1)
    return PlanCost(
        steps, sent, sent, total, reduced, messages, pieces=g * shards, far_steps=rounds, far=shards * rounds
    )


def _flow_cost(request: PlanRequest) -> PlanCost:
    """Price broadcast, reduce and barrier."""
    hosts = Hosts(request)
    n = request.nranks
    home = int(hosts.host[max(request.root, 0)])
    pieces = 1 if request.kind is CollectiveKind.BARRIER else request.pieces or 1
    place = (np.arange(hosts.count) - home) % hosts.count
    sizes = hosts.sizes.tolist()
    height = max(int(v).bit_count() + height_of(s, 2) for v, s in zip(place.tolist(), sizes, strict=True))
    degree = [
        len(children_of(v, hosts.count, 2)) + (s - 1).bit_length()
        for v, s in zip(place.tolist(), sizes, strict=True)
    ]
    most, every = max(degree) * pieces, (n - 1) * pieces
    far_steps, far = height_of(hosts.count, 2), len(children_of(0, hosts.count, 2)) * pieces
    if request.kind is CollectiveKind.BROADCAST:
        return PlanCost(height, most, pieces, every, 0, most, height - 1, pieces, far_steps, far)
    if request.kind is CollectiveKind.REDUCE:
        far = min(far, pieces)
        return PlanCost(height, pieces, most, every, most, most, height - 1, pieces, far_steps, far)
    both = max(d + (v != 0) for d, v in zip(degree, place.tolist(), strict=True))
    return PlanCost(2 * height, both, both, 2 * every, max(degree), both, 0, 1, 2 * far_steps, far)


def _collect_cost(request: PlanRequest) -> PlanCost:
    """Price gather and scatter: a block travels one edge per bit of its host's and its own number."""
    hosts = Hosts(request)
    g, n = hosts.count, request.nranks
    home = int(hosts.host[request.root])
    sizes = np.roll(hosts.sizes, -home).tolist()
    edges = [0] * (max(sizes) + 1)
    for i in range(max(sizes)):
        edges[i + 1] = edges[i] + i.bit_count()
    total = sum(s * v.bit_count() + edges[s] for v, s in enumerate(sizes))
    height = max(v.bit_count() + height_of(s, 2) for v, s in enumerate(sizes))
    heaviest = 1
    for s in filter(lambda size: size > 1, sizes):
        ends = [*children_of(0, s, 2)[1:], s]
        heaviest = max([heaviest, *(end - c for c, end in zip(children_of(0, s, 2), ends, strict=True))])
    for v in children_of(0, g, 2):
        heaviest = max(heaviest, sum(sizes[v : 2 * v]))
    messages = len(children_of(0, g, 2)) + (sizes[0] - 1).bit_length()
    up = request.kind in (CollectiveKind.GATHER, CollectiveKind.GATHERV)
    sent, received = (heaviest, n - 1) if up else (n - 1, heaviest)
    far = max([0, *(sum(sizes[v : 2 * v]) for v in children_of(0, g, 2))]) if up else n - sizes[0]
    return PlanCost(height, sent, received, total, 0, messages, far_steps=height_of(g, 2), far=far)


PLANNER = Algorithm(
    NAME,
    {
        CollectiveKind.ALLREDUCE: Form(_allreduce, _allreduce_cost),
        CollectiveKind.ALLGATHER: Form(blocks.allgather, blocks.allgather_cost),
        CollectiveKind.REDUCE_SCATTER: Form(blocks.reduce_scatter, blocks.reduce_scatter_cost),
        CollectiveKind.ALLTOALL: Form(blocks.alltoall, blocks.alltoall_cost),
        CollectiveKind.BROADCAST: Form(_flow, _flow_cost),
        CollectiveKind.REDUCE: Form(_flow, _flow_cost),
        CollectiveKind.GATHER: Form(_flow, _collect_cost),
        CollectiveKind.SCATTER: Form(_flow, _collect_cost),
        CollectiveKind.BARRIER: Form(_flow, _flow_cost),
    },
)
