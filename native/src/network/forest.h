// Weighted spanning out-trees as flat arrays: what packing makes. pycomm/planner/graph/forest.py reads them.
#pragma once

#include <cstdint>
#include <vector>

namespace pycomm::network {

// Tree t has the edges first_edge[t] .. first_edge[t + 1], each from a rank that is the root or was reached before;
// edge e runs along the vertices path[first_vertex[e]] .. path[first_vertex[e + 1]], from src to dst, both included.
struct Forest {
  std::vector<std::int32_t> root;
  std::vector<std::int64_t> weight;
  std::vector<std::int64_t> first_edge{0};
  std::vector<std::int64_t> first_vertex{0};
  std::vector<std::int32_t> path;

  void end_edge() { first_vertex.push_back(static_cast<std::int64_t>(path.size())); }
  void end_tree(std::int32_t from, std::int64_t units) {
    root.push_back(from);
    weight.push_back(units);
    first_edge.push_back(static_cast<std::int64_t>(first_vertex.size()) - 1);
  }
};

}  // namespace pycomm::network
