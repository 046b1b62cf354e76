// Bounds and packing on networks small enough to know; published ones are checked by tests/unit/test_graph_bounds.py.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <set>
#include <utility>
#include <vector>

#include "network/bound.h"
#include "network/digraph.h"
#include "network/exact.h"
#include "network/flow.h"
#include "network/pack.h"

namespace pycomm::network {
namespace {

struct Net {
  int nranks, nvertices;
  std::vector<std::int32_t> src, dst;
  std::vector<std::int64_t> capacity;

  void one_way(std::int32_t a, std::int32_t b, std::int64_t units) {
    src.push_back(a);
    dst.push_back(b);
    capacity.push_back(units);
  }
  void both_ways(std::int32_t a, std::int32_t b, std::int64_t units) {
    one_way(a, b, units);
    one_way(b, a, units);
  }
  Digraph graph() const { return {nranks, nvertices, src, dst}; }
  std::vector<std::int64_t> ones() const { return std::vector<std::int64_t>(at(nranks), 1); }
};

// Eight ranks joined directly, in the manner of a DGX-1: its greatest ratio is 7/6.
Net cube_mesh(std::int64_t unit = 1) {
  Net net{8, 8, {}, {}, {}};
  for (const auto& [a, b] :
       std::vector<std::pair<int, int>>{{0, 1}, {0, 4}, {1, 3}, {2, 3}, {2, 6}, {4, 5}, {5, 7}, {6, 7}})
    net.both_ways(a, b, 2 * unit);
  for (const auto& [a, b] :
       std::vector<std::pair<int, int>>{{0, 2}, {0, 3}, {1, 2}, {1, 5}, {3, 7}, {4, 6}, {4, 7}, {5, 6}})
    net.both_ways(a, b, unit);
  return net;
}

// Boxes of ranks on a switch each, every rank also on one of two switches between the boxes.
Net boxes(int count, int size, std::int64_t inside, std::int64_t between) {
  const int n = count * size;
  Net net{n, n + count + 2, {}, {}, {}};
  for (int r = 0; r < n; ++r) {
    net.both_ways(r, n + r / size, inside);
    net.both_ways(r, n + count + r % 2, between);
  }
  return net;
}

// Ranks and switches joined by closed walks, so that everything is balanced.
Net random_walks(int nranks, int nswitches, std::uint32_t seed) {
  const auto next = [&seed](int below) {
    seed = seed * 1664525U + 1013904223U;
    return static_cast<int>((seed >> 16U) % static_cast<std::uint32_t>(below));
  };
  std::map<std::pair<int, int>, std::int64_t> arcs;
  const int n = nranks + nswitches;
  for (int walk = 0; walk < 2 * n; ++walk) {
    const std::int64_t units = 1 + next(5);
    std::vector<int> way{walk % nranks};
    for (int i = 0; i < 5; ++i) {
      const int v = next(n);
      if (v != way.back() && v != way.front()) way.push_back(v);
    }
    if (way.size() < 2) continue;
    for (std::size_t i = 0; i < way.size(); ++i) arcs[{way[i], way[(i + 1) % way.size()]}] += units;
  }
  for (int r = 0; r < nranks; ++r) arcs[{r, (r + 1) % nranks}] += 1;
  Net net{nranks, n, {}, {}, {}};
  for (const auto& [pair, units] : arcs) net.one_way(pair.first, pair.second, units);
  return net;
}

// Every tree spans in the order told, no arc carries too much, and the roots have their weight.
void expect_fits(const Net& net, const std::vector<std::int64_t>& capacity, const std::vector<std::int64_t>& roots,
                 const Forest& forest) {
  std::map<std::pair<int, int>, std::int64_t> left;
  for (std::size_t a = 0; a < capacity.size(); ++a) left[{net.src[a], net.dst[a]}] = capacity[a];
  std::vector<std::int64_t> weight(at(net.nranks), 0);
  for (std::size_t t = 0; t < forest.root.size(); ++t) {
    EXPECT_GE(forest.weight[t], 1);
    weight[at(forest.root[t])] += forest.weight[t];
    std::set<int> reached{forest.root[t]};
    for (auto e = forest.first_edge[t]; e < forest.first_edge[t + 1]; ++e) {
      const auto first = forest.first_vertex[at(e)];
      const auto last = forest.first_vertex[at(e) + 1] - 1;
      EXPECT_EQ(reached.count(forest.path[at(first)]), 1U);
      EXPECT_TRUE(reached.insert(forest.path[at(last)]).second);
      for (auto i = first; i < last; ++i) {
        const auto found = left.find({forest.path[at(i)], forest.path[at(i) + 1]});
        ASSERT_NE(found, left.end());
        found->second -= forest.weight[t];
        EXPECT_GE(found->second, 0);
      }
    }
    EXPECT_EQ(reached.size(), at(net.nranks));
    EXPECT_LT(*reached.rbegin(), net.nranks);
  }
  EXPECT_EQ(weight, roots);
}

// Packs at the bound, by growth and by the proved method.
void expect_packed(const Net& net, const std::vector<std::int64_t>& weights) {
  const Digraph graph = net.graph();
  const Ratio ratio = greatest_ratio(graph, net.capacity, weights);
  ASSERT_GT(ratio.capacity, 0);
  std::int64_t g = ratio.capacity;
  for (const std::int64_t units : net.capacity) g = std::gcd(g, units);
  std::vector<std::int64_t> capacity, roots;
  for (const std::int64_t units : net.capacity) capacity.push_back(units / g * ratio.weight);
  for (const std::int64_t units : weights) roots.push_back(units * (ratio.capacity / g));
  EXPECT_TRUE(violated_cuts(graph, capacity, roots).empty());
  std::int64_t by_proof = 0;
  expect_fits(net, capacity, roots, pack(graph, capacity, roots, by_proof));
  Forest forest;
  pack_exactly(graph, capacity, roots, forest);
  expect_fits(net, capacity, roots, forest);
}

TEST(Flow, StopsAtTheTargetAndNamesTheSmallestSet) {
  Net net{3, 3, {}, {}, {}};
  net.one_way(0, 1, 5);
  net.one_way(1, 2, 3);
  const Digraph graph = net.graph();
  Flow<std::int64_t> flow(graph);
  for (int a = 0; a < 2; ++a) flow.set_capacity(a, net.capacity[at(a)]);
  flow.set_supply(0, 10);
  EXPECT_EQ(flow.run(2, 2), 2);
  EXPECT_EQ(flow.flow(1), 2);
  EXPECT_EQ(flow.run(2, 10), 3);
  EXPECT_EQ(std::vector<std::int32_t>(flow.reached().begin(), flow.reached().end()), std::vector<std::int32_t>{2});
  flow.clear();
  flow.settle(1);
  EXPECT_EQ(flow.run(1, 100), 100);
  EXPECT_EQ(flow.run(2, 100), 3);
}

TEST(Bound, CubeMesh) {
  const Net net = cube_mesh();
  const Ratio ratio = greatest_ratio(net.graph(), net.capacity, net.ones());
  EXPECT_EQ(ratio.weight, 7);
  EXPECT_EQ(ratio.capacity, 6);
}

TEST(Bound, NumbersThatOverflow64BitsInProducts) {
  const Net net = cube_mesh((std::int64_t{1} << 50) + 1);
  std::vector<std::int64_t> weights(8, (std::int64_t{1} << 40) + 7);
  const Ratio ratio = greatest_ratio(net.graph(), net.capacity, weights);
  EXPECT_EQ(Int128{ratio.weight} * 6 * net.capacity[16 * 2 - 1], Int128{ratio.capacity} * 7 * weights[0]);
  const Net wide = cube_mesh(std::int64_t{1} << 58);
  EXPECT_THROW(greatest_ratio(wide.graph(), wide.capacity, wide.ones()), std::overflow_error);
}

TEST(Bound, NothingLeavesAPart) {
  Net net{4, 4, {}, {}, {}};
  net.both_ways(0, 1, 1);
  net.both_ways(2, 3, 1);
  net.one_way(0, 2, 1);
  const Ratio ratio = greatest_ratio(net.graph(), net.capacity, net.ones());
  EXPECT_EQ(ratio.capacity, 0);
  EXPECT_EQ(ratio.outside, (std::vector<std::uint8_t>{1, 1, 0, 0}));
}

TEST(Bound, CutsOfTooLittleCapacity) {
  const Net net = cube_mesh();
  std::vector<std::int64_t> capacity = net.capacity;
  EXPECT_TRUE(violated_cuts(net.graph(), capacity, std::vector<std::int64_t>(8, 0)).empty());
  for (std::int64_t& units : capacity) units *= 7;
  EXPECT_TRUE(violated_cuts(net.graph(), capacity, std::vector<std::int64_t>(8, 6)).empty());
  capacity[0] -= 1;  // from 0 to 1: only what enters 1 is too little now
  const auto cuts = violated_cuts(net.graph(), capacity, std::vector<std::int64_t>(8, 6));
  ASSERT_EQ(cuts.size(), 1U);
  EXPECT_EQ(cuts[0], (std::vector<std::uint8_t>{0, 1, 0, 0, 0, 0, 0, 0}));
}

TEST(Pack, CubeMesh) { expect_packed(cube_mesh(), cube_mesh().ones()); }

TEST(Pack, OneRoot) {
  for (int root = 0; root < 8; ++root) {
    std::vector<std::int64_t> weights(8, 0);
    weights[at(root)] = 1;
    expect_packed(cube_mesh(), weights);
  }
}

TEST(Pack, Boxes) {
  expect_packed(boxes(1, 4, 3, 1), std::vector<std::int64_t>(4, 1));
  expect_packed(boxes(2, 4, 12, 1), std::vector<std::int64_t>(8, 1));
  expect_packed(boxes(3, 4, 12, 5), std::vector<std::int64_t>(12, 1));
}

TEST(Pack, RandomBalancedNetworks) {
  for (std::uint32_t seed = 0; seed < 40; ++seed) {
    const int nranks = 2 + static_cast<int>(seed % 6);
    const Net net = random_walks(nranks, static_cast<int>(seed % 5), seed);
    std::vector<std::int64_t> weights = net.ones();
    if (seed % 3 == 0) weights[0] = 4;
    if (seed % 3 == 1) weights[at(nranks) - 1] = 0;
    expect_packed(net, weights);
  }
}

TEST(Pack, RefusesWhatDoesNotFit) {
  Net net = cube_mesh();
  Forest forest;
  EXPECT_THROW(pack_exactly(net.graph(), net.capacity, net.ones(), forest), std::logic_error);
}

}  // namespace
}  // namespace pycomm::network
