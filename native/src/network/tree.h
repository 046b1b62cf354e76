// One tree, grown breadth first from its root through capacity that is left.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "network/digraph.h"
#include "network/pool.h"

namespace pycomm::network {

struct Branch {
  std::int32_t src, dst;     // ranks
  std::int32_t first, last;  // its arcs in Tree::arcs
};

struct Tree {
  std::int32_t root = -1;
  std::vector<Branch> branches;
  std::vector<std::int32_t> arcs;
};

// What all trees still to come have to share.
struct Remaining {
  std::vector<std::int64_t> capacity;  // of each arc
  std::vector<std::int64_t> roots;     // units of each rank
  std::int64_t total = 0;              // of all ranks
  std::vector<std::int64_t> slack;     // of each set of the pool
};

class Grower {
 public:
  // Arcs of the graph from `narcs` on are not to be used.
  Grower(const Digraph& graph, int narcs, const Pool& pool);

  // Starts a tree of `units` at a root. `remaining` has to stay as long as the tree grows; its slacks may be replaced,
  // and the pool may grow, between calls: renew() takes note.
  void start(const Remaining& remaining, std::int32_t root, std::int64_t units);
  // Adds branches until the tree is complete, or has `most`, or no more can be added; whether it is complete.
  bool grow(std::size_t most = std::numeric_limits<std::size_t>::max());
  // Takes all but the first branches back.
  void cut_back(std::size_t branches);
  void renew();
  const Tree& tree() const noexcept { return tree_; }
  // Arcs that all searches have looked at.
  std::int64_t work() const noexcept { return work_; }
  int height() const noexcept { return static_cast<int>(at_depth_.size()) - 1; }
  // How often the tree takes each arc that it takes.
  std::span<const std::int32_t> used() const noexcept { return used_; }
  std::int64_t uses(std::int32_t arc) const noexcept { return uses_[at(arc)]; }
  // Ways into a set beyond the one that the tree pays for.
  std::int64_t extra(int set) const noexcept { return crossed_[at(set)] - (pool_.holds(set, tree_.root) ? 0 : 1); }
  bool reached(std::int32_t rank) const noexcept { return depth_[at(rank)] >= 0; }

 private:
  bool spread(int depth);
  void search(int depth);
  bool allowed(std::int32_t arc, std::int64_t pending) const noexcept;
  void reach(std::int32_t rank, int depth);
  double price(std::int32_t arc) const noexcept;
  void take(std::int32_t arc);
  void put_back(std::int32_t arc);
  bool is_full() const noexcept { return tree_.branches.size() >= most_; }
  bool commit(std::int32_t rank, int depth);

  const Digraph& graph_;
  const Pool& pool_;
  std::vector<std::int32_t> first_out_, out_;  // arcs that leave each vertex
  const Remaining* remaining_ = nullptr;
  std::int64_t units_ = 0;
  std::size_t most_ = 0;
  bool fair_ = true;
  Tree tree_;
  std::vector<std::int64_t> uses_, taken_;  // of each arc: how often, and units
  std::vector<std::int32_t> used_;
  std::vector<std::int64_t> crossed_;  // of each set: how often the tree enters it
  std::vector<std::int32_t> met_;      // of each set: how many of its ranks are reached
  std::vector<std::int32_t> depth_;    // of each rank, -1: not reached
  std::vector<std::vector<std::int32_t>> at_depth_;
  // Labels of a search.
  std::vector<std::uint32_t> seen_;
  std::uint32_t now_ = 0;
  std::vector<std::int32_t> hops_, by_;
  std::vector<double> cost_;
  std::vector<std::int32_t> queue_, targets_, way_;
  bool again_ = false;
  std::int64_t work_ = 0;
};

}  // namespace pycomm::network
