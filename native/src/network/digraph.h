// A network as the planners see it: ranks first, then the vertices that only pass on, joined by arcs of whole
// capacities. pycomm/planner/graph/network.py is the same in Python.
//
// Half-arcs: every arc has one at each end. The one in the list of `dst` stands for the arc itself, the one in the list
// of `src` for the way back, along which flow can be taken back. A search that runs against the flow, from the sink,
// reads the lists of the vertices that it visits and nothing else.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pycomm::network {

__extension__ typedef __int128 Int128;

template <std::integral T>
constexpr std::size_t at(T i) noexcept {
  return static_cast<std::size_t>(i);
}

struct Digraph {
  int nranks = 0;
  int nvertices = 0;
  std::vector<std::int32_t> src, dst;  // of each arc
  std::vector<std::int32_t> first;     // half-arcs of vertex v: first[v] .. first[v + 1]
  std::vector<std::int32_t> other;     // of each half-arc: the vertex at the other end
  std::vector<std::int32_t> twin;      // of each half-arc: the one at the other end
  std::vector<std::int32_t> arc;       // of each half-arc: its arc
  std::vector<std::int32_t> half;      // of each arc: its half-arc in the list of dst

  // Throws std::invalid_argument when an arc leads to no vertex or there are too many.
  Digraph(int ranks, int vertices, std::span<const std::int32_t> sources, std::span<const std::int32_t> targets);

  int narcs() const noexcept { return static_cast<int>(src.size()); }
  // Whether the half-arc is its arc's in the list of dst.
  bool is_arc(int h) const noexcept { return half[at(arc[at(h)])] == h; }
};

// Capacity of the arcs that enter the set.
Int128 entering(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::uint8_t> inside);

}  // namespace pycomm::network
