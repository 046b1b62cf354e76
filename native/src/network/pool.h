// Sets of vertices that have been found tight, and how much of their slack trees have taken.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "network/digraph.h"

namespace pycomm::network {

class Pool {
 public:
  explicit Pool(const Digraph& graph)
      : graph_(graph), entered_(graph.src.size()), left_(graph.src.size()), around_(at(graph.nranks)) {}

  // False when the set is known already.
  bool add(std::vector<std::uint8_t>&& inside);
  // Forgets all but the first sets.
  void keep(int count);
  int size() const noexcept { return static_cast<int>(inside_.size()); }
  bool holds(int set, std::int32_t vertex) const noexcept { return inside_[at(set)][at(vertex)] != 0; }
  // Sets that an arc enters.
  std::span<const std::int32_t> entered(std::int32_t arc) const noexcept { return entered_[at(arc)]; }
  // Sets that an arc leaves, of the arcs that do not start at a rank.
  std::span<const std::int32_t> left(std::int32_t arc) const noexcept { return left_[at(arc)]; }
  // Sets that hold a rank.
  std::span<const std::int32_t> around(std::int32_t rank) const noexcept { return around_[at(rank)]; }
  // Capacity entering each set less the weight rooted outside it.
  std::vector<std::int64_t> slacks(std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots) const;

 private:
  const Digraph& graph_;
  std::vector<std::vector<std::uint8_t>> inside_;
  std::vector<std::vector<std::int32_t>> entered_, left_;  // of each arc
  std::vector<std::vector<std::int32_t>> around_;          // of each rank
};

// Sets that usually are tight, found without a flow: what hangs together by the fastest links, then by the next
// fastest, and so on, as far as it is several ranks and not all.
std::vector<std::vector<std::uint8_t>> clusters(const Digraph& graph, std::span<const std::int64_t> capacity);

}  // namespace pycomm::network
