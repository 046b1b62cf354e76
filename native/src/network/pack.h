// Spanning trees packed into capacities.
//
// Let rank r be root of roots[r] units of trees, and let every vertex that is no rank have as much capacity in as out.
// Trees of that weight fit if and only if, for every set Z that holds a rank, the capacity entering Z is at least the
// weight rooted outside Z (J. Edmonds, Edge-disjoint branchings, 1973; J. Bang-Jensen, A. Frank, B. Jackson, Preserving
// and increasing local edge-connectivity in mixed graphs, 1995). What is entered above that is the *slack* of Z. A tree
// pays for its first way into Z; each further one takes from the slack.
//
// The trees are therefore grown one after another, broadly and over short paths, along whatever capacity is left, with
// no flow at all; then one sweep of flows over the ranks tells whether every set still has what the other trees need.
// If not, it names the sets that were entered too often. They join a *pool* that all later growth respects, and the
// trees since the last sweep are grown again. A tree takes as many units at once as the capacities on its way and the
// slack of the pool allow.
//
// Growing so needs no switch to be split away and nearly always goes through. Where it does not, the rest is packed by
// the proved method (exact.h), which always does.
#pragma once

#include <cstdint>
#include <span>

#include "network/digraph.h"
#include "network/forest.h"

namespace pycomm::network {

// Capacities are balanced and sufficient; capacities and roots add up to 2^62 at most. Throws std::logic_error when the
// input was not so. `by_proof` is the share of the weight, in units, that the proved method had to pack.
Forest pack(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots,
            std::int64_t& by_proof);

}  // namespace pycomm::network
