#include "network/pack.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

#include "network/exact.h"
#include "network/flow.h"
#include "network/pool.h"
#include "network/tree.h"

namespace pycomm::network {
namespace {

constexpr int kMaxSetsPerSweep = 64;
constexpr int kMaxFailures = 200;  // in a row, before the proved method takes over
constexpr std::size_t kMaxBatch = 32;

// The graph with one more vertex and an arc from it to every rank: the source of the tree that is being grown.
Digraph with_source(const Digraph& graph) {
  std::vector<std::int32_t> src(graph.src), dst(graph.dst);
  for (std::int32_t r = 0; r < graph.nranks; ++r) {
    src.push_back(graph.nvertices);
    dst.push_back(r);
  }
  return {graph.nranks, graph.nvertices + 1, src, dst};
}

class Packer {
 public:
  Packer(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots)
      : graph_(graph),
        extended_(with_source(graph)),
        pool_(extended_),
        flow_(extended_),
        grower_(extended_, graph.narcs(), pool_) {
    kept_.capacity.assign(capacity.begin(), capacity.end());
    kept_.capacity.resize(at(extended_.narcs()), 0);
    kept_.roots.assign(roots.begin(), roots.end());
    kept_.total = std::accumulate(roots.begin(), roots.end(), std::int64_t{0});
    for (std::vector<std::uint8_t>& cluster : clusters(extended_, kept_.capacity)) pool_.add(std::move(cluster));
    // Roots in an order that is spread over the network.
    const std::int64_t n = graph.nranks;
    std::int64_t step = std::max<std::int64_t>(1, n * 618 / 1000);
    while (std::gcd(step, n) != 1) ++step;
    for (std::int64_t i = 0, r = 0; i < n; ++i, r = (r + step) % n) order_.push_back(static_cast<std::int32_t>(r));
  }

  Forest run(std::int64_t& by_proof) {
    refresh();
    std::size_t size = 1;
    int failures = 0;
    while (kept_.total > 0 && failures <= kMaxFailures) {
      const bool grown = now_.total == 0 || add_tree();
      if (grown && now_.total > 0 && batch_.size() < size) continue;
      if (batch_.empty()) {  // a tree that cannot be completed, and nothing but what is kept to blame
        ++failures;
        if (!sweep_partial()) break;
        refresh();
      } else if (sweep(now_, now_.total)) {
        keep();
        failures = grown ? 0 : failures;
        size = std::min({2 * size, kMaxBatch, std::max<std::size_t>(1, at(graph_.nranks) / 32)});
      } else {
        ++failures;
        if (batch_.size() == 1) reduce();
        size = std::max<std::size_t>(1, size / 2);
        refresh();
      }
    }
    by_proof = kept_.total;
    if (kept_.total > 0) {
      kept_.capacity.resize(at(graph_.narcs()));
      pack_exactly(graph_, kept_.capacity, kept_.roots, forest_);
    }
    return std::move(forest_);
  }

 private:
  struct Grown {
    Tree tree;
    std::int64_t units;
  };

  // Back to what is kept, with the pool as it is.
  void refresh() {
    kept_.slack = pool_.slacks(kept_.capacity, kept_.roots);
    now_ = kept_;
    batch_.clear();
    units_ = 0;
  }

  void keep() {
    for (const Grown& grown : batch_) {
      for (const Branch& branch : grown.tree.branches) {
        forest_.path.push_back(branch.src);
        for (std::int32_t i = branch.first; i < branch.last; ++i)
          forest_.path.push_back(graph_.dst[at(grown.tree.arcs[at(i)])]);
        forest_.end_edge();
      }
      forest_.end_tree(grown.tree.root, grown.units);
    }
    batch_.clear();
    kept_ = now_;
  }

  // Grows a tree of as many units as go, halving until one can be completed. False when not even one unit can.
  bool add_tree() {
    while (now_.roots[at(order_[next_])] == 0) next_ = (next_ + 1) % order_.size();
    const std::int32_t root = order_[next_];
    if (units_ == 0 || units_ > now_.roots[at(root)]) units_ = now_.roots[at(root)];
    for (;; units_ /= 2) {
      if (grower_.grow(now_, root, units_)) break;
      if (units_ == 1) return false;
    }
    std::int64_t units = now_.roots[at(root)];
    for (const std::int32_t a : grower_.used()) units = std::min(units, now_.capacity[at(a)] / grower_.uses(a));
    for (int set = 0; set < pool_.size(); ++set)
      if (grower_.extra(set) > 0) units = std::min(units, now_.slack[at(set)] / grower_.extra(set));
    for (const std::int32_t a : grower_.used()) now_.capacity[at(a)] -= units * grower_.uses(a);
    for (int set = 0; set < pool_.size(); ++set) now_.slack[at(set)] -= units * grower_.extra(set);
    now_.roots[at(root)] -= units;
    now_.total -= units;
    batch_.push_back({grower_.tree(), units});
    units_ = 0;
    return true;
  }

  // Whether every rank still hears all; adds the sets that are entered by too little to the pool.
  bool sweep(const Remaining& state, std::int64_t wanted) {
    flow_.clear();
    for (int a = 0; a < extended_.narcs(); ++a) flow_.set_capacity(a, state.capacity[at(a)]);
    for (int r = 0; r < graph_.nranks; ++r) flow_.set_supply(r, state.roots[at(r)]);
    flow_.unsettle_all();
    int found = 0;
    for (int i = 0; i < graph_.nranks && found < kMaxSetsPerSweep; ++i) {
      const int r = (i + first_) % graph_.nranks;
      if (flow_.run(r, wanted) == wanted) {
        flow_.settle(r);
        continue;
      }
      std::vector<std::uint8_t> inside(at(extended_.nvertices), 0);
      for (const std::int32_t v : flow_.reached()) inside[at(v)] = 1;
      inside[at(graph_.nvertices)] = 0;
      if (++found == 1) blocked_ = r;
      learned_ = pool_.add(std::move(inside)) || learned_;
    }
    if (found > 0) first_ = blocked_;
    return found == 0;
  }

  // Looks for the sets that stop the last tree, of units_ units. False when there is none that was not known.
  bool sweep_partial() {
    Remaining state = now_;
    for (const std::int32_t a : grower_.used()) state.capacity[at(a)] -= units_ * grower_.uses(a);
    state.roots[at(grower_.tree().root)] -= units_;
    for (std::int32_t r = 0; r < graph_.nranks; ++r)
      state.capacity[at(graph_.narcs() + r)] = grower_.reached(r) ? units_ : 0;
    flow_.clear();
    flow_.set_supply(graph_.nvertices, units_);
    learned_ = false;
    sweep(state, now_.total);
    flow_.clear();
    flow_.set_supply(graph_.nvertices, 0);
    return learned_;
  }

  // Fewer units of the one tree that took too much, if that makes it fit.
  void reduce() {
    const Grown& grown = batch_[0];
    const std::vector<std::int64_t> slack = pool_.slacks(kept_.capacity, kept_.roots);
    std::vector<std::int64_t> extra(slack.size(), 0);
    for (const std::int32_t a : grown.tree.arcs)
      for (const std::int32_t set : pool_.entered(a)) ++extra[at(set)];
    std::int64_t units = grown.units;
    for (std::size_t set = 0; set < slack.size(); ++set) {
      if (!pool_.holds(static_cast<int>(set), grown.tree.root)) --extra[set];
      if (extra[set] > 0) units = std::min(units, slack[set] / extra[set]);
    }
    if (2 * units < grown.units) return;
    Remaining state = kept_;
    for (const std::int32_t a : grown.tree.arcs) state.capacity[at(a)] -= units;
    state.roots[at(grown.tree.root)] -= units;
    state.total -= units;
    if (!sweep(state, state.total)) return;
    batch_[0].units = units;
    now_ = std::move(state);
    keep();
  }

  const Digraph& graph_;
  Digraph extended_;
  Pool pool_;
  Flow<std::int64_t> flow_;
  Grower grower_;
  std::vector<std::int32_t> order_;
  std::size_t next_ = 0;
  Remaining kept_, now_;
  std::vector<Grown> batch_;
  std::int64_t units_ = 0;  // of the next tree; 0: as many as its root has
  Forest forest_;
  int first_ = 0;  // the rank that a sweep starts with: the one that blocked last
  int blocked_ = 0;
  bool learned_ = false;
};

}  // namespace

Forest pack(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots,
            std::int64_t& by_proof) {
  return Packer(graph, capacity, roots).run(by_proof);
}

}  // namespace pycomm::network
