"""The description of networks: model, files, generators, importers, and what this machine looks like."""

from pycomm.topology.model import Link, LinkTable, Node, NodeKind, Topology

__all__ = ["Link", "LinkTable", "Node", "NodeKind", "Topology"]
