// The exact bound of a collective on a network, and the cuts that prove it.
//
// Let rank r hold weight[r] units that every other rank must hear. Whatever the ranks of a set S hold has to leave S
// if a rank is outside: the time is at least weight(S) / capacity leaving S. The greatest such ratio is the bound; it
// can be reached where every vertex that is no rank has as much capacity in as out.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "network/digraph.h"

namespace pycomm::network {

// weight / capacity in lowest terms; capacity is 0 when nothing leaves the set and the ranks outside hear nothing.
struct Ratio {
  std::int64_t weight = 0;
  std::int64_t capacity = 1;
  std::vector<std::uint8_t> outside;  // of each vertex: whether it is outside S
};

// The greatest ratio, by Newton's method on ratios. Needs a rank with weight and one more rank. Throws
// std::overflow_error when weights or capacities add up to more than 2^62.
Ratio greatest_ratio(const Digraph& graph, std::span<const std::int64_t> capacity,
                     std::span<const std::int64_t> weight);

// Sets S whose weight exceeds the capacity leaving them, at most one for each rank that hears too little, no two alike;
// empty when every rank can hear all. Membership of what is outside. Throws as above.
std::vector<std::vector<std::uint8_t>> violated_cuts(const Digraph& graph, std::span<const std::int64_t> capacity,
                                                     std::span<const std::int64_t> weight);

}  // namespace pycomm::network
