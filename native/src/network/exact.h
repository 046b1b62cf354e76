// Packing by the proved method: every switch is split away, then trees grow edge by edge, each edge tested by a flow.
//
// Splitting moves m units of an arc (u, w) into a switch and of an arc (w, t) out of it to a new arc (u, t). As long as
// the switch has as much in as out there is always a pair for which that keeps every set sufficient (W. Mader; A.
// Frank; J. Bang-Jensen, A. Frank, B. Jackson, 1995); which pair, and how much, a sweep of flows tells. What was moved
// is remembered, arc by arc, and unrolled to paths of the network at the end.
//
// Growing takes mu units of an arc (x, y) from a tree's ranks to a new rank. Only sets with y inside and x outside lose
// by it; one flow to y tells how much of mu is safe (L. Lovász, On two minimax theorems in graphs, 1976).
#pragma once

#include <cstdint>
#include <span>

#include "network/digraph.h"
#include "network/forest.h"

namespace pycomm::network {

// Adds trees of weight roots[r] at each rank r to the forest. Throws std::logic_error when capacities are not balanced
// or not sufficient.
void pack_exactly(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots,
                  Forest& forest);

}  // namespace pycomm::network
