"""Translations of a graph: automorphisms that lead every vertex to one of its neighbours.

A Cayley graph of a commutative group has one for each of its generators: tori, hypercubes, circulant graphs,
full meshes and all products of these. A translation is found by propagation. It leads vertex 0 to a chosen
neighbour; a neighbour v of a vertex u that is settled must go to a common neighbour of v and of u's image,
and there is often only one. Where there are several, going straight on is tried first: from u over v to a
vertex that u cannot reach in two steps any other way.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

__all__ = ["translations"]

Ints = npt.NDArray[np.int64]
_Label = tuple[int, int]

MAX_TRIES = 24
"""Ways of settling doubtful vertices tried for one translation."""
MAX_DEGREE = 256
"""Vertices with more neighbours are looked at only if the graph is a full mesh."""


class _Graph:
    """Neighbours of each vertex, with the rates of the links there and back."""

    def __init__(
        self, count: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32], rate: Ints
    ) -> None:
        self.count = count
        there = dict(zip(zip(src.tolist(), dst.tolist(), strict=True), rate.tolist(), strict=True))
        self.near: list[dict[int, _Label]] = [{} for _ in range(count)]
        for (a, b), forth in there.items():
            back = there.get((b, a), 0)
            self.near[a][b] = (forth, back)
            self.near[b][a] = (back, forth)
        self.reached: set[int] = set()  # must be led out of itself

    def ways(self, a: int, b: int) -> int:
        """Count the paths of two steps from a to b."""
        return len(self.near[a].keys() & self.near[b].keys())


def translations(
    count: int, src: npt.NDArray[np.int32], dst: npt.NDArray[np.int32], rate: Ints
) -> tuple[Ints, list[tuple[Ints, int]]] | None:
    """Find translations that lead vertex 0 to every vertex.

    Parameters
    ----------
    count
        How many vertices there are.
    src, dst, rate
        The arcs.

    Returns
    -------
    tuple or None
        A place for each vertex, an array of shape ``(count, number of translations)``; and the translations
        with the number of times that each is used: vertex with place ``(a, b, ...)`` is what the
        translations, each used so often, make of vertex 0, the last translation first. ``None`` when there
        are none.
    """
    if len(src) == count * (count - 1) and (rate == rate[0]).all():
        everyone = np.arange(count)
        return everyone[:, None], [((everyone + 1) % count, count)]
    degree = np.bincount(src, minlength=count)
    if (degree != degree[0]).any() or degree[0] > MAX_DEGREE or len(src) < count:
        return None
    graph = _Graph(count, src, dst, rate)
    reached: list[int] = [0]
    places: list[tuple[int, ...]] = [()]
    found: list[tuple[Ints, int]] = []
    for neighbour in sorted(graph.near[0], key=lambda v: (graph.near[0][v], v)):
        graph.reached = set(reached)
        if neighbour in graph.reached:
            continue
        image = _translation(graph, neighbour)
        if image is None:
            continue
        reached, places, uses = _orbit(reached, places, image)
        found.append((np.array(image, np.int64), uses))
        if len(reached) == count:
            break
    if len(reached) != count:
        return None
    place = np.zeros((count, len(found)), np.int64)
    place[reached] = np.array(places, np.int64)
    return place, found[::-1]


def _orbit(
    reached: list[int], places: list[tuple[int, ...]], image: list[int]
) -> tuple[list[int], list[tuple[int, ...]], int]:
    """Move what is reached on until it meets itself."""
    known, moved, uses = set(reached), reached, 1
    all_reached, all_places = list(reached), [(0, *place) for place in places]
    while True:
        moved = [image[v] for v in moved]
        if not known.isdisjoint(moved):
            return all_reached, all_places, uses
        known.update(moved)
        all_reached += moved
        all_places += [(uses, *place) for place in places]
        uses += 1


def _translation(graph: _Graph, target: int) -> list[int] | None:
    """Find the translation that leads 0 to a neighbour of it."""
    choices: list[list[int]] = []  # at each doubt: which alternative is tried, and how many there are
    for _ in range(MAX_TRIES):
        image = _propagate(graph, target, choices)
        if image is not None:
            return image
        while choices and choices[-1][0] + 1 >= choices[-1][1]:
            choices.pop()
        if not choices:
            return None
        choices[-1][0] += 1
    return None


class _Search:
    """One attempt: what is settled, and where each vertex beside it may still go."""

    def __init__(self, graph: _Graph) -> None:
        self.graph = graph
        self.image: dict[int, int] = {}
        self.source: dict[int, int] = {}
        self.may: dict[int, set[int]] = {}
        self.wanted_by: dict[int, set[int]] = {}
        self.forced: list[int] = []

    def settle(self, vertex: int, image: int) -> bool:
        """Fix where a vertex goes; say whether all others still have somewhere to go."""
        near = self.graph.near
        self.image[vertex], self.source[image] = image, vertex
        for w in self.may.pop(vertex, ()):
            self.wanted_by[w].discard(vertex)
        for v in self.wanted_by.pop(image, ()):
            self.may[v].discard(image)
            if not self._still_possible(v):
                return False
        ahead = near[image]
        for v, label in near[vertex].items():
            if v in self.image:
                if ahead.get(self.image[v]) != label:
                    return False
                continue
            before = self.may.get(v)
            if before is None:
                options = {w for w in near[v] if ahead.get(w) == label and w not in self.source}
                if v in self.graph.reached:
                    options -= self.graph.reached
                for w in options:
                    self.wanted_by.setdefault(w, set()).add(v)
            else:
                options = {w for w in before if ahead.get(w) == label}
                for w in before - options:
                    self.wanted_by[w].discard(v)
            self.may[v] = options
            if not self._still_possible(v):
                return False
        return True

    def _still_possible(self, vertex: int) -> bool:
        """Whether a vertex has a place left; remember it when it has just one."""
        left = len(self.may[vertex])
        if left == 1:
            self.forced.append(vertex)
        return left > 0

    def run_forced(self) -> bool:
        """Settle all that has only one place left."""
        while self.forced:
            v = self.forced.pop()
            if v not in self.image and not self.settle(v, next(iter(self.may[v]))):
                return False
        return True

    def doubtful(self) -> tuple[int, list[int]] | None:
        """Choose the next vertex to settle, the newest image first, and its options, likeliest first."""
        if not self.may:
            return None
        last = next(reversed(self.source))
        v = last if last in self.may else min(self.may, key=lambda u: (len(self.may[u]), u))
        before = self.source.get(v, -1)

        def likely(w: int) -> tuple[bool, int, int]:
            return w in self.image, self.graph.ways(before, w) if before >= 0 else 0, w

        return v, sorted(self.may[v], key=likely)


def _propagate(graph: _Graph, target: int, choices: list[list[int]]) -> list[int] | None:
    """Build a translation; take the alternatives that are told, and the first one at each new doubt."""
    search = _Search(graph)
    if not search.settle(0, target):
        return None
    told: Iterator[list[int]] = iter(list(choices))
    while search.run_forced():
        doubt = search.doubtful()
        if doubt is None:
            break
        vertex, options = doubt
        pick = next(told, None)
        if pick is None:
            pick = [0, len(options)]
            choices.append(pick)
        if not search.settle(vertex, options[min(pick[0], len(options) - 1)]):
            return None
    if len(search.image) != graph.count:
        return None
    return [search.image[v] for v in range(graph.count)]
