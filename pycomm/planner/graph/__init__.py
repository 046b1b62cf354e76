"""Planning on the network graph: exact bounds, tree packing, free-root allreduce, structured candidates."""
