"""How ranks lie on hosts: any number per host, unequal numbers, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pycomm.planner.base import PlanRequest
from pycomm.planner.knomial import children_of
from pycomm.planner.trees import Tree, runs

__all__ = ["Hosts", "Runs"]

Array = npt.NDArray[np.int64]


class Hosts:
    """Ranks by host.

    Attributes
    ----------
    count : int
        Number of hosts; they are numbered by their lowest ranks.
    host, local : array
        Host of each rank, and its place among that host's ranks.
    sizes : array
        Ranks of each host.
    shards : int
        Ranks of the smallest host: how many ranks of each host can own a share of what crosses between hosts.
    members : array of shape (count, max(sizes))
        Ranks of each host in ascending order, filled up with -1.
    """

    def __init__(self, request: PlanRequest) -> None:
        labels = np.array(request.hosts or (0,) * request.nranks, np.int64)
        _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
        self.host: Array = np.argsort(np.argsort(first))[inverse]
        self.count = int(first.size)
        self.sizes: Array = np.bincount(self.host)
        self.shards = int(self.sizes.min())
        self.members: Array = np.full((self.count, int(self.sizes.max())), -1, np.int64)
        self.local: Array = np.empty_like(self.host)
        for h in range(self.count):
            ranks = np.flatnonzero(self.host == h)
            self.members[h, : ranks.size] = ranks
            self.local[ranks] = np.arange(ranks.size)

    def ranks(self, host: int) -> Array:
        """Ranks of ``host``, ascending."""
        found: Array = self.members[host, : self.sizes[host]]
        return found

    def neighbour(self, ranks: Array, step: int) -> Array:
        """Rank ``step`` places further among the ranks of the same host, in a circle."""
        h = self.host[ranks]
        found: Array = self.members[h, (self.local[ranks] + step) % self.sizes[h]]
        return found

    def shard(self, host: int, shard: int) -> Array:
        """Ranks of ``host`` whose blocks its owner number ``shard`` answers for; the owner is the first."""
        found: Array = self.ranks(host)[shard :: self.shards]
        return found

    def tree(self, root: int) -> Tree:
        """Make a binomial tree over hosts, and on each host a binomial tree over its ranks.

        On the root's host the root stands for its host, on others the first rank does.
        """
        children: list[list[int]] = [[]] * self.host.size
        home = int(self.host[root])
        standing = [self.ranks(h).tolist() for h in range(self.count)]
        standing[home].remove(root)
        standing[home].insert(0, root)
        for v in range(self.count):
            ranks = standing[(v + home) % self.count]
            for i, rank in enumerate(ranks):
                children[rank] = [ranks[c] for c in children_of(i, len(ranks), 2)]
            children[ranks[0]] += [
                standing[(c + home) % self.count][0] for c in children_of(v, self.count, 2)
            ]
        return Tree(root, children)


class Runs:
    """Groups of blocks, each cut into runs of consecutive ones, to be sent as one message per run."""

    def __init__(self, groups: Sequence[Array]) -> None:
        cut = [runs(group) if group.size else [] for group in groups]
        self.number = np.array([len(found) for found in cut], np.int64)
        self._offset = np.concatenate([[0], np.cumsum(self.number)])
        self._start = np.array([start for found in cut for _, start, _ in found], np.int64)
        self._count = np.array([count for found in cut for _, _, count in found], np.int64)

    def of(self, groups: Array) -> tuple[Array, Array, Array]:
        """All runs of the listed groups: index in the list, first block, and length of each."""
        number = self.number[groups]
        index = np.repeat(np.arange(groups.size), number)
        within = np.arange(index.size) - np.repeat(np.cumsum(number) - number, number)
        run = self._offset[groups][index] + within
        return index, self._start[run], self._count[run]
