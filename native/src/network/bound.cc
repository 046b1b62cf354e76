#include "network/bound.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <stdexcept>

#include "network/flow.h"

namespace pycomm::network {
namespace {

constexpr Int128 kMost = Int128{1} << 62;

std::int64_t narrow(Int128 value) {
  if (value > kMost) throw std::overflow_error("weights or capacities add up to more than 2^62");
  return static_cast<std::int64_t>(value);
}

Int128 sum(std::span<const std::int64_t> values) { return std::accumulate(values.begin(), values.end(), Int128{0}); }

Ratio make_ratio(Int128 weight, Int128 capacity, std::vector<std::uint8_t>&& outside) {
  std::int64_t p = narrow(weight);
  std::int64_t q = narrow(capacity);
  const std::int64_t g = std::gcd(p, q);
  return {p / g, q / g, std::move(outside)};
}

bool less(const Ratio& a, const Ratio& b) { return Int128{a.weight} * b.capacity < Int128{b.weight} * a.capacity; }

std::vector<std::uint8_t> membership(const Digraph& graph, std::span<const std::int32_t> vertices) {
  std::vector<std::uint8_t> inside(at(graph.nvertices), 0);
  for (const std::int32_t v : vertices) inside[at(v)] = 1;
  return inside;
}

Ratio ratio_of(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> weight,
               std::span<const std::int32_t> outside) {
  std::vector<std::uint8_t> mask = membership(graph, outside);
  Int128 held = 0;
  for (std::size_t r = 0; r < weight.size(); ++r)
    if (mask[r] == 0) held += weight[r];
  const Int128 leaving = entering(graph, capacity, mask);
  return make_ratio(held, leaving, std::move(mask));
}

// The greatest ratio of the sets that leave out one rank and no other vertex.
Ratio first_guess(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> weight) {
  std::vector<Int128> in(at(graph.nvertices), 0);
  for (std::size_t a = 0; a < capacity.size(); ++a) in[at(graph.dst[a])] += capacity[a];
  const Int128 total = sum(weight);
  Ratio best;
  std::int32_t where = -1;
  for (std::int32_t r = 0; r < graph.nranks; ++r) {
    const Int128 held = total - weight[at(r)];
    if (held == 0) continue;
    Ratio ratio = make_ratio(held, in[at(r)], {});
    if (where >= 0 && !less(best, ratio)) continue;
    best = std::move(ratio);
    where = r;
  }
  if (where < 0) throw std::invalid_argument("there is no rank that has to hear anything");
  best.outside = membership(graph, std::span(&where, 1));
  return best;
}

// Improves `best` until every rank from `rank` on passes, or it no longer fits C: then returns the rank to go on from.
template <typename C>
int sweep(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> weight,
          Ratio& best, int rank, bool (*fits)(const Ratio&, Int128, Int128)) {
  const Int128 total = sum(weight);
  const Int128 widest = capacity.empty() ? 0 : *std::max_element(capacity.begin(), capacity.end());
  Flow<C> flow(graph);
  for (int r = 0; r < rank; ++r) flow.settle(r);
  bool fresh = true;
  while (rank < graph.nranks && best.capacity > 0) {
    if (fresh) {
      if (!fits(best, widest, total)) return rank;
      flow.clear();
      for (std::size_t a = 0; a < capacity.size(); ++a)
        flow.set_capacity(static_cast<int>(a), static_cast<C>(best.weight) * static_cast<C>(capacity[a]));
      for (int r = 0; r < graph.nranks; ++r)
        flow.set_supply(r, static_cast<C>(best.capacity) * static_cast<C>(weight[at(r)]));
      fresh = false;
    }
    const C wanted = static_cast<C>(best.capacity) * static_cast<C>(total);
    if (flow.run(rank, wanted) == wanted) {
      flow.settle(rank++);
      continue;
    }
    Ratio better = ratio_of(graph, capacity, weight, flow.reached());
    if (!less(best, better)) throw std::logic_error("a cut that a flow found is no better than the one before");
    best = std::move(better);
    fresh = true;
  }
  return graph.nranks;
}

template <typename C>
std::vector<std::vector<std::uint8_t>> collect(const Digraph& graph, std::span<const std::int64_t> capacity,
                                               std::span<const std::int64_t> weight, C total) {
  Flow<C> flow(graph);
  for (std::size_t a = 0; a < capacity.size(); ++a) flow.set_capacity(static_cast<int>(a), static_cast<C>(capacity[a]));
  for (int r = 0; r < graph.nranks; ++r) flow.set_supply(r, static_cast<C>(weight[at(r)]));
  std::vector<std::vector<std::uint8_t>> cuts;
  std::set<std::vector<std::int32_t>> known;
  for (int r = 0; r < graph.nranks; ++r) {
    if (flow.run(r, total) == total) {
      flow.settle(r);
    } else {
      std::vector<std::int32_t> outside(flow.reached().begin(), flow.reached().end());
      std::sort(outside.begin(), outside.end());
      if (known.insert(outside).second) cuts.push_back(membership(graph, outside));
    }
  }
  return cuts;
}

}  // namespace

Ratio greatest_ratio(const Digraph& graph, std::span<const std::int64_t> capacity,
                     std::span<const std::int64_t> weight) {
  narrow(sum(weight));
  narrow(sum(capacity));
  Ratio best = first_guess(graph, capacity, weight);
  const auto in_64 = [](const Ratio& ratio, Int128 widest, Int128 total) {
    return ratio.weight * widest <= kMost && ratio.capacity * total <= kMost;
  };
  const auto in_128 = [](const Ratio&, Int128, Int128) { return true; };
  const int rank = sweep<std::int64_t>(graph, capacity, weight, best, 0, in_64);
  sweep<Int128>(graph, capacity, weight, best, rank, in_128);
  return best;
}

std::vector<std::vector<std::uint8_t>> violated_cuts(const Digraph& graph, std::span<const std::int64_t> capacity,
                                                     std::span<const std::int64_t> weight) {
  narrow(sum(capacity));
  return collect<std::int64_t>(graph, capacity, weight, narrow(sum(weight)));
}

}  // namespace pycomm::network
