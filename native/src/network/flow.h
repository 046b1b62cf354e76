// Maximum flow from where data start to one vertex, by Dinic's method run from the sink: breadth first until there is
// supply enough, then as much as the tree of that search takes in one pass (on a long ring, a path for each of its
// ranks would cost the square), then a blocking flow along its levels.
//
// Every vertex may have a supply; a vertex may also be *settled*, which makes its supply unlimited. Flow may start at
// any of them and has to reach the sink; capacities and supplies are whole numbers of type C.
//
// Settling is what makes a sweep over all ranks cheap (Hao and Orlin, A faster algorithm for finding the minimum cut
// in a directed graph, 1994, rest on the same fact). When a flow of the wanted value reaches v, every set that holds
// v and is entered by too little has been ruled out. For the next sink only sets without v are left to look for, and
// among these v may as well have everything: its flow starts next door instead of everywhere.
//
// A flow stops as soon as it has the value asked for. The next one starts from nothing, but only what the last one
// touched is put back, so its cost is that of the region it saw. One thread per object.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "network/digraph.h"

namespace pycomm::network {

template <typename C>
class Flow {
 public:
  explicit Flow(const Digraph& graph)
      : graph_(graph),
        base_(graph.other.size(), 0),
        residual_(graph.other.size(), 0),
        touched_(graph.other.size(), 0),
        supply_(at(graph.nvertices), 0),
        left_(at(graph.nvertices), 0),
        settled_(at(graph.nvertices), 0),
        seen_(at(graph.nvertices), 0),
        level_(at(graph.nvertices), 0),
        next_(at(graph.nvertices), 0),
        by_(at(graph.nvertices), 0),
        amount_(at(graph.nvertices), 0) {}

  // Set between flows only: after construction, or after clear().
  void set_capacity(int arc, C value) noexcept {
    const auto h = at(graph_.half[at(arc)]);
    base_[h] = residual_[h] = value;
  }
  C capacity(int arc) const noexcept { return base_[at(graph_.half[at(arc)])]; }
  void set_supply(int vertex, C value) noexcept { supply_[at(vertex)] = left_[at(vertex)] = value; }
  C supply(int vertex) const noexcept { return supply_[at(vertex)]; }
  void settle(int vertex) noexcept { settled_[at(vertex)] = 1; }
  void unsettle(int vertex) noexcept { settled_[at(vertex)] = 0; }
  void unsettle_all() noexcept { std::fill(settled_.begin(), settled_.end(), std::uint8_t{0}); }

  // Takes the last flow back.
  void clear() noexcept {
    for (const std::int32_t h : log_) {
      const auto t = at(graph_.twin[at(h)]);
      residual_[at(h)] = base_[at(h)];
      residual_[t] = base_[t];
      touched_[at(h)] = touched_[t] = 0;
    }
    log_.clear();
    for (const std::int32_t v : spent_) left_[at(v)] = supply_[at(v)];
    spent_.clear();
  }

  // Value of a greatest flow to the sink, or `target` if that is less. When it is less than `target`, reached() is
  // the smallest set that holds the sink and lets no more in.
  C run(int sink, C target) {
    clear();
    C total = std::min(target, available(sink));
    if (total > 0) spend(sink, total);
    while (total < target && find_levels(sink, target - total)) {
      total += gather(target - total);
      if (total < target) total += block(sink, target - total);
    }
    return total;
  }
  std::span<const std::int32_t> reached() const noexcept { return queue_; }

  // Half-arcs that all searches have looked at: a measure of time that is the same on every machine.
  std::int64_t work() const noexcept { return work_; }

  // After run: flow on an arc.
  C flow(int arc) const noexcept {
    const auto h = at(graph_.half[at(arc)]);
    return base_[h] - residual_[h];
  }

 private:
  C available(int v) const noexcept { return settled_[at(v)] != 0 ? std::numeric_limits<C>::max() : left_[at(v)]; }
  void spend(int v, C amount) {
    if (settled_[at(v)] != 0) return;
    if (left_[at(v)] == supply_[at(v)]) spent_.push_back(v);
    left_[at(v)] -= amount;
  }

  // Breadth first against the arcs to the end of the level on which as much supply as wanted has been met; false when
  // there is none at all.
  bool find_levels(int sink, C wanted) {
    ++now_;
    queue_.clear();
    visit(sink, 0, -1);
    last_ = std::numeric_limits<int>::max();
    C missing = wanted;
    for (std::size_t i = 0; i < queue_.size(); ++i) {
      const int v = queue_[i];
      const int level = level_[at(v)] + 1;
      if (level > last_) break;
      work_ += graph_.first[at(v) + 1] - graph_.first[at(v)];
      for (int h = graph_.first[at(v)]; h < graph_.first[at(v) + 1]; ++h) {
        const int u = graph_.other[at(h)];
        if (residual_[at(h)] <= 0 || seen_[at(u)] == now_) continue;
        visit(u, level, h);
        missing -= std::min(missing, available(u));
        if (missing == 0) last_ = level;
      }
    }
    return missing < wanted;
  }
  void visit(int v, int level, int by) {
    seen_[at(v)] = now_;
    level_[at(v)] = level;
    next_[at(v)] = graph_.first[at(v)];
    by_[at(v)] = by;
    queue_.push_back(v);
  }

  // Flow along the tree of the search. First each vertex is told how much can come to it, from the leaves on; then the
  // sink asks for what it wants, and each vertex takes from its own supply before it asks those behind it.
  C gather(C wanted) {
    for (const std::int32_t v : queue_) amount_[at(v)] = std::min(wanted, available(v));
    for (std::size_t i = queue_.size() - 1; i > 0; --i) {
      const auto v = at(queue_[i]);
      const auto h = at(by_[v]);
      C& onward = amount_[at(graph_.other[at(graph_.twin[h])])];
      onward += std::min({amount_[v], residual_[h], wanted - onward});
    }
    // From here on amount_ is what a vertex still has to deliver.
    const C total = amount_[at(queue_[0])];
    for (std::size_t i = 1; i < queue_.size(); ++i) {
      const auto v = at(queue_[i]);
      const std::int32_t h = by_[v];
      C& asked = amount_[at(graph_.other[at(graph_.twin[at(h)])])];
      C& mine = amount_[v];
      mine = std::min({mine, residual_[at(h)], asked});
      if (mine == 0) continue;
      asked -= mine;
      push(h, mine);
      const C own = std::min(mine, available(queue_[i]));
      if (own > 0) spend(queue_[i], own);
      mine -= own;
    }
    return total;
  }

  // Blocking flow along the levels, depth first from the sink.
  C block(int sink, C wanted) {
    C total = 0;
    path_.clear();
    int v = sink;
    while (true) {
      if (v != sink && available(v) > 0) {
        total += augment(v, wanted - total);
        if (total == wanted) return total;
        std::size_t keep = 0;  // back to the first arc that is full, or try the last step again
        while (keep < path_.size() && residual_[at(path_[keep])] > 0) ++keep;
        if (keep == path_.size()) --keep;
        path_.resize(keep);
        v = keep == 0 ? sink : graph_.other[at(path_[keep - 1])];
        continue;
      }
      if (advance(v)) {
        v = graph_.other[at(path_.back())];
      } else {
        if (path_.empty()) return total;
        path_.pop_back();
        v = path_.empty() ? sink : graph_.other[at(path_.back())];
        ++next_[at(v)];
      }
    }
  }
  bool advance(int v) {
    for (int& h = next_[at(v)]; h < graph_.first[at(v) + 1]; ++h) {
      const auto u = at(graph_.other[at(h)]);
      if (residual_[at(h)] > 0 && seen_[u] == now_ && level_[u] == level_[at(v)] + 1) {
        path_.push_back(h);
        return true;
      }
    }
    return false;
  }
  C augment(int from, C wanted) {
    C amount = std::min(wanted, available(from));
    for (const std::int32_t h : path_) amount = std::min(amount, residual_[at(h)]);
    spend(from, amount);
    for (const std::int32_t h : path_) push(h, amount);
    return amount;
  }
  void push(std::int32_t h, C amount) {
    const auto t = at(graph_.twin[at(h)]);
    residual_[at(h)] -= amount;
    residual_[t] += amount;
    if (touched_[at(h)] != 0) return;
    touched_[at(h)] = touched_[t] = 1;
    log_.push_back(h);
  }

  const Digraph& graph_;
  std::vector<C> base_, residual_;  // of each half-arc, from the other end to this one
  std::vector<std::uint8_t> touched_;
  std::vector<C> supply_, left_;
  std::vector<std::uint8_t> settled_;
  std::vector<std::uint32_t> seen_;
  std::vector<std::int32_t> level_, next_, by_;
  std::vector<C> amount_;
  std::vector<std::int32_t> queue_, path_, log_, spent_;
  std::uint32_t now_ = 0;
  int last_ = 0;
  std::int64_t work_ = 0;
};

}  // namespace pycomm::network
