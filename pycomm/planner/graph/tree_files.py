"""Files of spanning trees, as ForestColl writes them: read into a schedule, and our own forests written so.

::

    <Algo nchunkspernode="2">
      <tree root="gpu0" index="0" nchunks="1" height="2">
        <send src="gpu0" dst="gpu1" path="gpu0,switch,gpu1"/>
        ...

A tree carries ``nchunks`` of the ``nchunkspernode`` chunks of its root. Paths say which way a hop takes
through the network; a schedule does not need them, since messages lead from rank to rank.

References
----------
liangyuRain/ForestColl, ``pipeline_allgather.py`` (function ``spanning_trees_to_xml``), commit 3c13aee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import quoteattr

import numpy as np

from pycomm.errors import TopologyError, UsageError
from pycomm.planner.base import PlanRequest
from pycomm.planner.graph.forest import Edge, Forest, Tree
from pycomm.planner.graph.lowering import lower
from pycomm.planner.graph.network import Network
from pycomm.schedule import Schedule
from pycomm.topology.importers.source import Source, decode, natural
from pycomm.topology.importers.xmltext import Element, parse_xml
from pycomm.types import CollectiveKind

__all__ = ["format_trees", "read_trees", "trees_schedule"]

_KINDS: Final = (CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALLREDUCE)


def read_trees(data: bytes, name: str = "tree file", ranks: Sequence[str] = ()) -> Forest:
    """Read a file of trees.

    Parameters
    ----------
    data
        The file.
    name
        Its name, for messages.
    ranks
        Name of each rank's device in the file; by default those that appear as roots or ends of hops, sorted
        with numbers as numbers.

    Returns
    -------
    Forest
        On a network of its own: an arc from rank to rank for each hop that some tree takes, wide enough.

    Raises
    ------
    UsageError
        It is no file of trees, is cut short, or a tree does not span the ranks; with the line.
    """
    try:
        source = decode(data, name)
        root = parse_xml(source)
        trees = list(root.named("tree"))
        if root.tag.lower() != "algo" or not trees:
            source.fail("this is no file of trees: <Algo> with <tree> elements is wanted", root.line)
        hops = [[(send.get("src"), send.get("dst"), send) for send in tree.named("send")] for tree in trees]
        found = {tree.get("root") for tree in trees}.union(*({a, b} for hop in hops for a, b, _ in hop))
        names = tuple(ranks) or tuple(sorted(found, key=natural))
        number = {device: rank for rank, device in enumerate(names)}
        made = [_tree(source, tree, hop, number) for tree, hop in zip(trees, hops, strict=True)]
    except TopologyError as error:  # as the reader of XML calls what is wrong with a file
        raise UsageError(str(error)) from None
    forest = Forest(_own_network(names, made), tuple(made))
    for problem in forest.problems():
        raise UsageError(f"{name}: {problem}")
    return forest


def _tree(
    source: Source, tree: Element, hops: Sequence[tuple[str, str, Element]], number: dict[str, int]
) -> Tree:
    for device, element in [(tree.get("root"), tree), *((end, e) for a, b, e in hops for end in (a, b))]:
        if device not in number:
            source.fail(f"{device!r} is not one of the {len(number)} ranks", element.line)
    text = tree.get("nchunks", "1")
    if not text.isdecimal() or not 1 <= int(text) < 2**31:
        source.fail(f"nchunks={text!r} is no number of chunks", tree.line)
    edges = [Edge(number[a], number[b], (number[a], number[b])) for a, b, _ in hops]
    return Tree(number[tree.get("root")], int(text), _grown(number[tree.get("root")], edges))


def _grown(root: int, edges: list[Edge]) -> tuple[Edge, ...]:
    """Put edges in an order in which each starts where the tree has come to; what never fits comes last."""
    leaving: dict[int, list[Edge]] = {}
    for edge in edges:
        leaving.setdefault(edge.src, []).append(edge)
    order: list[Edge] = []
    front = [root]
    while front:
        grown = [edge for at in front for edge in leaving.pop(at, ())]
        order += grown
        front = [edge.dst for edge in grown]
    return (*order, *(edge for rest in leaving.values() for edge in rest))


def _own_network(names: tuple[str, ...], trees: Sequence[Tree]) -> Network:
    carried: dict[tuple[int, int], int] = {}
    for tree in trees:
        for edge in tree.edges:
            pair = edge.src, edge.dst
            carried[pair] = carried.get(pair, 0) + tree.weight
    pairs = sorted(carried)
    src, dst = np.array(pairs, np.int32).reshape(-1, 2).T
    capacity = np.array([carried[pair] for pair in pairs], np.int64)
    return Network(len(names), names, src.copy(), dst.copy(), capacity, 1, np.zeros(len(pairs)))


def trees_schedule(
    forest: Forest, kind: CollectiveKind, *, in_place: bool = False, pieces: int = 0
) -> Schedule:
    """Make the schedule that trees of an allgather stand for.

    Parameters
    ----------
    forest
        As :func:`read_trees` gives it: trees of equal weight in all at each rank.
    kind
        allgather; reduce_scatter, with every hop turned round; allreduce, one after the other.
    in_place, pieces
        As in :class:`~pycomm.planner.base.PlanRequest`.

    Returns
    -------
    Schedule
        Not verified yet.

    Raises
    ------
    UsageError
        Another collective.
    PlanningError
        The trees' weights do not fit the collective.
    """
    if kind not in _KINDS:
        raise UsageError(
            f"trees of an allgather make no {kind.label}; they make {', '.join(k.label for k in _KINDS)}"
        )
    request = PlanRequest(kind, forest.network.nranks, in_place=in_place, pieces=pieces)
    forests = (forest, forest) if kind is CollectiveKind.ALLREDUCE else (forest,)
    return lower(request, *forests, name="trees")


def format_trees(forest: Forest) -> str:
    """Write a forest as a file of trees.

    Raises
    ------
    UsageError
        A vertex has a name with a comma, which separates the vertices of a path.
    """
    names = forest.network.names
    if any("," in name for name in names):
        raise UsageError("names of vertices must have no commas in a file of trees; rename them first")
    weights = forest.roots()
    lines = [f'<Algo nchunkspernode="{int(weights.max(initial=0))}">']
    count = [0] * forest.network.nranks
    for tree in sorted(forest.trees, key=lambda tree: tree.root):
        facts = {
            "root": names[tree.root],
            "index": str(count[tree.root]),
            "nchunks": str(tree.weight),
            "height": str(tree.height()),
        }
        count[tree.root] += 1
        lines.append("  <tree " + " ".join(f"{key}={quoteattr(text)}" for key, text in facts.items()) + ">")
        for edge in tree.edges:
            path = ",".join(names[vertex] for vertex in edge.path)
            ends = f"src={quoteattr(names[edge.src])} dst={quoteattr(names[edge.dst])}"
            lines.append(f"    <send {ends} path={quoteattr(path)}/>")
        lines.append("  </tree>")
    return "\n".join([*lines, "</Algo>", ""])
