#include "network/pack.h"

#include <algorithm>
#include <iterator>
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
constexpr int kMaxFailures = 4;          // in a row, before a tree is grown with sweeps on its way
constexpr int kMaxCarefulSweeps = 2000;  // for one tree, before the proved method takes over
constexpr std::size_t kMaxBatch = 32;
constexpr int kMaxIdleRounds = 30;               // of flattening, in a row
constexpr std::int64_t kLeastWork = 20'000'000;  // that flattening may take, in arcs looked at
constexpr std::size_t kMostTaken = 64;

// The graph with one more vertex and an arc from it to every rank: the source of the tree that is being grown.
Digraph with_source(const Digraph& graph) {
  std::vector<std::int32_t> src(graph.src), dst(graph.dst);
  for (std::int32_t r = 0; r < graph.nranks; ++r) {
    src.push_back(graph.nvertices);
    dst.push_back(r);
  }
  return {graph.nranks, graph.nvertices + 1, src, dst};
}

// Roots in an order that is spread over the network.
std::vector<std::int32_t> spread_order(int nranks) {
  std::vector<std::int32_t> order;
  const std::int64_t n = nranks;
  std::int64_t step = std::max<std::int64_t>(1, n * 618 / 1000);
  while (std::gcd(step, n) != 1) ++step;
  for (std::int64_t i = 0, r = 0; i < n; ++i, r = (r + step) % n) order.push_back(static_cast<std::int32_t>(r));
  return order;
}

class Packer {
 public:
  Packer(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots)
      : graph_(graph),
        extended_(with_source(graph)),
        pool_(extended_),
        flow_(extended_),
        grower_(extended_, graph.narcs(), pool_),
        order_(spread_order(graph.nranks)) {
    kept_.capacity.assign(capacity.begin(), capacity.end());
    kept_.capacity.resize(at(extended_.narcs()), 0);
    kept_.roots.assign(roots.begin(), roots.end());
    kept_.total = std::accumulate(roots.begin(), roots.end(), std::int64_t{0});
    for (std::vector<std::uint8_t>& cluster : clusters(extended_, kept_.capacity)) pool_.add(std::move(cluster));
    nclusters_ = pool_.size();
  }

  // Packs what the roots have left. Returns how much the growth could not place: then nothing of it is lost, but
  // forest() has to place it by the proved method.
  std::int64_t run() {
    next_ = 0;
    refresh();
    std::size_t size = 1;
    int failures = 0;
    while (kept_.total > 0) {
      const bool grown = now_.total == 0 || add_tree();
      if (grown && now_.total > 0 && batch_.size() < size) continue;
      if (batch_.empty()) {  // a tree that cannot be completed, and nothing but what is kept to blame
        ++failures;
        learned_ = false;
        if (sweep_partial() || !learned_) failures = kMaxFailures + 1;
        refresh();
      } else if (sweep(now_, now_.total)) {
        keep();
        if (grown) failures = 0;
        size = std::min({2 * size, kMaxBatch, std::max<std::size_t>(1, at(graph_.nranks) / 32)});
      } else {
        ++failures;
        if (batch_.size() == 1) reduce();
        size = std::max<std::size_t>(1, size / 2);
        refresh();
      }
      if (failures > kMaxFailures) {
        if (!add_carefully()) break;
        failures = 0;
      }
    }
    return kept_.total;
  }

  // Takes the highest trees and some others back and packs them again, the highest first, as long as that helps: the
  // last trees of a packing get what is left and wind through it.
  void flatten() {
    std::uint64_t random = 1;
    const std::int64_t enough = work() + std::max(kLeastWork, work());
    for (int idle = 0; idle < kMaxIdleRounds && work() < enough; ++idle) {
      std::stable_sort(done_.begin(), done_.end(), [](const Grown& a, const Grown& b) { return a.height > b.height; });
      const std::int32_t highest = done_.front().height;
      if (highest <= done_[done_.size() / 2].height + 1) return;
      std::size_t taken = 1;
      while (taken < done_.size() && 2 * done_[taken].height > highest && taken < kMostTaken) ++taken;
      for (std::size_t more = 0; more < 3 * taken + 4 && taken + more < done_.size(); ++more) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        const std::size_t rest = done_.size() - taken - more;
        std::swap(done_[taken + more], done_[taken + more + at((random >> 33U) % rest)]);
        if (more == 3 * taken + 3 || rest == 1) {
          taken += more + 1;
          break;
        }
      }
      if (again(taken)) idle = -1;
    }
  }

  Forest forest() {
    std::stable_sort(done_.begin(), done_.end(),
                     [](const Grown& a, const Grown& b) { return a.tree.root < b.tree.root; });
    Forest forest;
    for (const Grown& grown : done_) {
      for (const Branch& branch : grown.tree.branches) {
        forest.path.push_back(branch.src);
        for (std::int32_t i = branch.first; i < branch.last; ++i)
          forest.path.push_back(graph_.dst[at(grown.tree.arcs[at(i)])]);
        forest.end_edge();
      }
      forest.end_tree(grown.tree.root, grown.units);
    }
    if (kept_.total > 0) {
      kept_.capacity.resize(at(graph_.narcs()));
      pack_exactly(graph_, kept_.capacity, kept_.roots, forest);
    }
    return forest;
  }

 private:
  std::int64_t work() const noexcept { return flow_.work() + grower_.work(); }

  struct Grown {
    Tree tree;
    std::int64_t units;
    std::int32_t height;
  };

  // Back to what is kept, with the pool as it is.
  void refresh() {
    kept_.slack = pool_.slacks(kept_.capacity, kept_.roots);
    now_ = kept_;
    batch_.clear();
    units_ = 0;
  }

  void keep() {
    std::move(batch_.begin(), batch_.end(), std::back_inserter(done_));
    batch_.clear();
    kept_ = now_;
  }

  // Takes the first trees back and packs them again in their order. False, and all is as before, when that makes them
  // no lower.
  bool again(std::size_t count) {
    std::vector<Grown> all = std::move(done_);
    const Remaining before = kept_;
    std::vector<std::int32_t> order;
    const auto middle = all.begin() + static_cast<std::ptrdiff_t>(count);
    for (auto grown = all.begin(); grown != middle; ++grown) {
      for (const std::int32_t a : grown->tree.arcs) kept_.capacity[at(a)] += grown->units;
      kept_.roots[at(grown->tree.root)] += grown->units;
      kept_.total += grown->units;
      if (std::find(order.begin(), order.end(), grown->tree.root) == order.end()) order.push_back(grown->tree.root);
    }
    done_.clear();
    order_ = std::move(order);
    pool_.keep(nclusters_);  // what was tight in another state seldom is in this one
    const auto worst = [](auto first, auto last) {
      std::pair<std::int32_t, std::size_t> most{0, 0};  // height, and how many have it
      for (; first != last; ++first) {
        if (first->height > most.first) most = {first->height, 0};
        if (first->height == most.first) ++most.second;
      }
      return most;
    };
    if (run() == 0 && worst(done_.begin(), done_.end()) < worst(all.begin(), middle)) {
      std::move(middle, all.end(), std::back_inserter(done_));
      return true;
    }
    done_ = std::move(all);
    kept_ = before;
    return false;
  }

  // Grows a tree of as many units as go, halving until one can be completed. False when not even one unit can.
  bool add_tree() {
    while (now_.roots[at(order_[next_])] == 0) next_ = (next_ + 1) % order_.size();
    const std::int32_t root = order_[next_];
    if (units_ == 0 || units_ > now_.roots[at(root)]) units_ = now_.roots[at(root)];
    for (;; units_ /= 2) {
      grower_.start(now_, root, units_);
      if (grower_.grow()) break;
      if (units_ == 1) return false;
    }
    std::int64_t units = now_.roots[at(root)];
    for (const std::int32_t a : grower_.used()) units = std::min(units, now_.capacity[at(a)] / grower_.uses(a));
    for (int set = 0; set < pool_.size(); ++set)
      if (grower_.extra(set) > 0) units = std::min(units, now_.slack[at(set)] / grower_.extra(set));
    apply(units);
    return true;
  }

  void apply(std::int64_t units) {
    const std::int32_t root = grower_.tree().root;
    for (const std::int32_t a : grower_.used()) now_.capacity[at(a)] -= units * grower_.uses(a);
    for (int set = 0; set < pool_.size(); ++set) now_.slack[at(set)] -= units * grower_.extra(set);
    now_.roots[at(root)] -= units;
    now_.total -= units;
    batch_.push_back({grower_.tree(), units, grower_.height()});
    units_ = 0;
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

  // Whether the tree as it is, of units_ units, leaves what it and the others need. Adds the sets that do not to the
  // pool.
  bool sweep_partial() {
    Remaining state = now_;
    for (const std::int32_t a : grower_.used()) state.capacity[at(a)] -= units_ * grower_.uses(a);
    state.roots[at(grower_.tree().root)] -= units_;
    for (std::int32_t r = 0; r < graph_.nranks; ++r)
      state.capacity[at(graph_.narcs() + r)] = grower_.reached(r) ? units_ : 0;
    flow_.clear();
    flow_.set_supply(graph_.nvertices, units_);
    const bool fine = sweep(state, now_.total);
    flow_.clear();
    flow_.set_supply(graph_.nvertices, 0);
    return fine;
  }

  // Grows one unit of a tree with a sweep every few branches; those that took too much are taken back. True when it was
  // completed and is kept.
  bool add_carefully() {
    refresh();
    while (now_.roots[at(order_[next_])] == 0) next_ = (next_ + 1) % order_.size();
    const std::int32_t root = order_[next_];
    units_ = 1;
    grower_.start(now_, root, units_);
    std::size_t good = 0;
    std::size_t window = 64;
    for (int sweeps = 0; sweeps < kMaxCarefulSweeps; ++sweeps) {
      const bool whole = grower_.grow(good + window);
      const std::size_t size = grower_.tree().branches.size();
      learned_ = false;
      if (sweep_partial()) {
        if (!whole && size == good) return false;
        good = size;
        window *= 2;
        if (!whole) continue;
        apply(1);
        keep();
        return true;
      }
      if (!learned_) return false;
      now_.slack = kept_.slack = pool_.slacks(kept_.capacity, kept_.roots);
      grower_.renew();
      grower_.cut_back(good);
      window = std::max<std::size_t>(1, std::min(window, size - good) / 2);
    }
    return false;
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
  std::vector<Grown> done_;
  int nclusters_ = 0;  // sets of the pool that were there from the start
  int first_ = 0;      // the rank that a sweep starts with: the one that blocked last
  int blocked_ = 0;
  bool learned_ = false;
};

}  // namespace

Forest pack(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::int64_t> roots,
            std::int64_t& by_proof) {
  Packer packer(graph, capacity, roots);
  by_proof = packer.run();
  if (by_proof == 0) packer.flatten();
  return packer.forest();
}

}  // namespace pycomm::network
