"""Files of trees: theirs read, ours written and read back, wrong ones refused."""

from __future__ import annotations

import pytest

from pycomm.errors import PlanningError, UsageError
from pycomm.planner.graph.synthesis import synthesize
from pycomm.planner.graph.tree_files import format_trees, read_trees, trees_schedule
from pycomm.topology.catalogue import named
from pycomm.types import CollectiveKind
from pycomm.verify import metrics, verify

# Three devices in a row of hops and a star of them, as ForestColl names its vertices.
THREE = """<Algo nchunkspernode="1">
  <tree root="(0, 'GPU', 10)" index="0" nchunks="1" height="2">
    <send src="(0, 'GPU', 2)" dst="(0, 'GPU', 1)" path="(0, 'GPU', 2),(0, 'GPU', 1)"/>
    <send src="(0, 'GPU', 10)" dst="(0, 'GPU', 2)" path="(0, 'GPU', 10),(-1, 'IB', 0),(0, 'GPU', 2)"/>
  </tree>
  <tree root="(0, 'GPU', 1)" index="0" nchunks="1" height="1">
    <send src="(0, 'GPU', 1)" dst="(0, 'GPU', 2)" path=""/>
    <send src="(0, 'GPU', 1)" dst="(0, 'GPU', 10)" path=""/>
  </tree>
  <tree root="(0, 'GPU', 2)" index="0" nchunks="1" height="1">
    <send src="(0, 'GPU', 2)" dst="(0, 'GPU', 1)" path=""/>
    <send src="(0, 'GPU', 2)" dst="(0, 'GPU', 10)" path=""/>
  </tree>
</Algo>
"""
KINDS = [CollectiveKind.ALLGATHER, CollectiveKind.REDUCE_SCATTER, CollectiveKind.ALLREDUCE]


def test_ranks_are_the_devices_in_natural_order():
    forest = read_trees(THREE.encode())
    assert forest.network.names == ("(0, 'GPU', 1)", "(0, 'GPU', 2)", "(0, 'GPU', 10)")
    assert [tree.root for tree in forest.trees] == [2, 0, 1]
    assert forest.height() == 2


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_their_trees_make_schedules_that_are_right(kind, in_place):
    schedule = trees_schedule(read_trees(THREE.encode()), kind, in_place=in_place, pieces=1)
    assert verify(schedule) == []
    assert metrics(schedule).total == 6 * (2 if kind is CollectiveKind.ALLREDUCE else 1)


@pytest.mark.parametrize("name", ["published_dgx_a100_x2", "published_dgx1v"])
def test_our_forests_survive_the_file(name):
    plan = synthesize(named(name), CollectiveKind.ALLGATHER)
    (forest,) = plan.forests
    ranks = forest.network.names[: forest.network.nranks]
    back = read_trees(format_trees(forest).encode(), ranks=ranks)
    assert sorted(
        (t.root, t.weight, {(e.src, e.dst) for e in t.edges} == set()) for t in back.trees
    ) == sorted((t.root, t.weight, False) for t in forest.trees)
    assert sorted(sorted((e.src, e.dst) for e in t.edges) for t in back.trees) == sorted(
        sorted((e.src, e.dst) for e in t.edges) for t in forest.trees
    )
    assert verify(trees_schedule(back, CollectiveKind.ALLGATHER, pieces=1)) == []


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("</Algo>", "", "cut short"),
        ("<Algo", "<!DOCTYPE a [<!ENTITY b 'c'>]><Algo", "refused"),
        ('nchunks="1"', 'nchunks="0"', "nchunks"),
        ('nchunks="1"', 'nchunks="many"', "nchunks"),
        ("tree", "branch", "no file of trees"),
        ("""dst="(0, 'GPU', 1)" path""", """dst="(0, 'GPU', 2)" path""", "does not grow it"),
    ],
)
def test_what_is_wrong_is_said(old, new, says):
    with pytest.raises(UsageError, match=says):
        read_trees(THREE.replace(old, new).encode())


def test_unequal_weights_make_no_allgather():
    with pytest.raises(PlanningError, match="weight"):
        trees_schedule(
            read_trees(THREE.replace('nchunks="1"', 'nchunks="2"', 1).encode()), CollectiveKind.ALLGATHER
        )


def test_what_trees_do_not_make_is_refused():
    with pytest.raises(UsageError, match="alltoall"):
        trees_schedule(read_trees(THREE.encode()), CollectiveKind.ALLTOALL)


def test_named_ranks_have_to_be_all_there():
    with pytest.raises(UsageError, match="not one of the 2 ranks"):
        read_trees(THREE.encode(), ranks=["(0, 'GPU', 1)", "(0, 'GPU', 2)"])
