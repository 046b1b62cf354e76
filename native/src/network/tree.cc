#include "network/tree.h"

#include <algorithm>

namespace pycomm::network {

Grower::Grower(const Digraph& graph, int narcs, const Pool& pool)
    : graph_(graph),
      pool_(pool),
      first_out_(at(graph.nvertices) + 1, 0),
      out_(at(narcs)),
      uses_(at(narcs), 0),
      taken_(at(narcs), 0),
      depth_(at(graph.nranks), -1),
      seen_(at(graph.nvertices), 0),
      hops_(at(graph.nvertices), 0),
      by_(at(graph.nvertices), -1),
      cost_(at(graph.nvertices), 0.0) {
  for (std::size_t a = 0; a < at(narcs); ++a) ++first_out_[at(graph.src[a]) + 1];
  for (std::size_t v = 0; v < at(graph.nvertices); ++v) first_out_[v + 1] += first_out_[v];
  std::vector<std::int32_t> next(first_out_.begin(), first_out_.end() - 1);
  for (int a = 0; a < narcs; ++a) out_[at(next[at(graph.src[at(a)])]++)] = a;
}

void Grower::start(const Remaining& remaining, std::int32_t root, std::int64_t units) {
  remaining_ = &remaining;
  units_ = units;
  tree_.root = root;
  tree_.branches.clear();
  tree_.arcs.clear();
  for (const std::int32_t a : used_) uses_[at(a)] = taken_[at(a)] = 0;
  used_.clear();
  crossed_.assign(at(pool_.size()), 0);
  met_.assign(at(pool_.size()), 0);
  std::fill(depth_.begin(), depth_.end(), -1);
  at_depth_.clear();
  reach(root, 0);
}

bool Grower::grow(std::size_t most) {
  const auto whole = at(graph_.nranks) - 1;
  most_ = std::min(most, whole);
  // First with no more than the tree's share of every set's slack, then with whatever there is.
  for (const bool fair : {true, false}) {
    fair_ = fair;
    for (std::size_t depth = 0; depth < at_depth_.size() && !is_full(); ++depth)
      while (spread(static_cast<int>(depth))) {
      }
    if (is_full()) break;
  }
  return tree_.branches.size() == whole;
}

void Grower::cut_back(std::size_t branches) {
  while (tree_.branches.size() > branches) {
    const Branch& branch = tree_.branches.back();
    for (std::int32_t i = branch.last; i-- > branch.first;) put_back(tree_.arcs[at(i)]);
    for (const std::int32_t set : pool_.around(branch.dst)) --met_[at(set)];
    at_depth_[at(depth_[at(branch.dst)])].pop_back();  // ranks of a depth are undone as they came
    if (at_depth_.back().empty()) at_depth_.pop_back();
    depth_[at(branch.dst)] = -1;
    tree_.arcs.resize(at(branch.first));
    tree_.branches.pop_back();
  }
}

void Grower::renew() {
  crossed_.assign(at(pool_.size()), 0);
  met_.assign(at(pool_.size()), 0);
  for (const std::int32_t a : tree_.arcs)
    for (const std::int32_t set : pool_.entered(a)) ++crossed_[at(set)];
  for (const auto& ranks : at_depth_)
    for (const std::int32_t r : ranks)
      for (const std::int32_t set : pool_.around(r)) ++met_[at(set)];
}

// Whether there are capacity and slack for one more use. `pending` is 1 while the ways into sets that lead to the arc
// are not counted yet.
bool Grower::allowed(std::int32_t arc, std::int64_t pending) const noexcept {
  if (remaining_->capacity[at(arc)] - taken_[at(arc)] < units_) return false;
  const std::int64_t share = fair_ ? remaining_->total : units_;
  for (const std::int32_t set : pool_.entered(arc))
    if (extra(set) + 1 > 0 && extra(set) + 1 > remaining_->slack[at(set)] / share) return false;
  // To pass through a set none of whose ranks is reached is to come in once more later.
  for (const std::int32_t set : pool_.left(arc))
    if (met_[at(set)] == 0 && crossed_[at(set)] + pending > remaining_->slack[at(set)] / share) return false;
  return true;
}

void Grower::reach(std::int32_t rank, int depth) {
  depth_[at(rank)] = depth;
  if (at_depth_.size() == at(depth)) at_depth_.emplace_back();
  at_depth_[at(depth)].push_back(rank);
  for (const std::int32_t set : pool_.around(rank)) ++met_[at(set)];
}

double Grower::price(std::int32_t arc) const noexcept {
  return 1.0 / static_cast<double>(remaining_->capacity[at(arc)] - taken_[at(arc)]);
}

void Grower::take(std::int32_t arc) {
  if (uses_[at(arc)]++ == 0) used_.push_back(arc);
  taken_[at(arc)] += units_;
  for (const std::int32_t set : pool_.entered(arc)) ++crossed_[at(set)];
}

void Grower::put_back(std::int32_t arc) {
  if (--uses_[at(arc)] == 0) used_.pop_back();  // taken last, so put back first
  taken_[at(arc)] -= units_;
  for (const std::int32_t set : pool_.entered(arc)) --crossed_[at(set)];
}

// Labels every vertex that the ranks of a depth can reach through vertices that are no ranks: least hops first, among
// these the way with most capacity left. Ranks that are not in the tree are targets.
void Grower::search(int depth) {
  ++now_;
  queue_.clear();
  targets_.clear();
  for (const std::int32_t r : at_depth_[at(depth)]) {
    seen_[at(r)] = now_;
    hops_[at(r)] = 0;
    cost_[at(r)] = 0;
    queue_.push_back(r);
  }
  for (std::size_t i = 0; i < queue_.size(); ++i) {
    const std::int32_t u = queue_[i];
    if (u < graph_.nranks && hops_[at(u)] > 0) continue;
    work_ += first_out_[at(u) + 1] - first_out_[at(u)];
    for (int o = first_out_[at(u)]; o < first_out_[at(u) + 1]; ++o) {
      const std::int32_t a = out_[at(o)];
      const std::int32_t v = graph_.dst[at(a)];
      if (v < graph_.nranks && depth_[at(v)] >= 0) continue;
      const bool fresh = seen_[at(v)] != now_;
      if (!fresh && hops_[at(v)] <= hops_[at(u)]) continue;
      if (remaining_->capacity[at(a)] - taken_[at(a)] < units_) continue;
      const double cost = cost_[at(u)] + price(a);
      if ((!fresh && cost >= cost_[at(v)]) || !allowed(a, 1)) continue;
      hops_[at(v)] = hops_[at(u)] + 1;
      cost_[at(v)] = cost;
      by_[at(v)] = a;
      if (!fresh) continue;
      seen_[at(v)] = now_;
      queue_.push_back(v);
      if (v < graph_.nranks) targets_.push_back(v);
    }
  }
}

// Adds what the ranks of a depth can reach. True when a new search could find more.
bool Grower::spread(int depth) {
  search(depth);
  std::stable_sort(targets_.begin(), targets_.end(), [this](std::int32_t a, std::int32_t b) {
    return hops_[at(a)] != hops_[at(b)] ? hops_[at(a)] < hops_[at(b)] : cost_[at(a)] < cost_[at(b)];
  });
  bool some = false;
  again_ = false;
  for (const std::int32_t r : targets_) {
    if (is_full()) return false;
    some = commit(r, depth) || some;
  }
  return some && again_;
}

// Adds a target by the way that the search found, if that is still good.
bool Grower::commit(std::int32_t rank, int depth) {
  way_.clear();
  std::int32_t v = rank;
  double cost = 0;
  while (v == rank || v >= graph_.nranks) {
    const std::int32_t a = by_[at(v)];
    way_.push_back(a);
    cost += price(a);
    v = graph_.src[at(a)];
  }
  if (cost > 2 * cost_[at(rank)]) {
    again_ = true;
    return false;
  }
  std::reverse(way_.begin(), way_.end());
  for (std::size_t i = 0; i < way_.size(); ++i) {
    if (allowed(way_[i], 0)) {
      take(way_[i]);
      continue;
    }
    while (i-- > 0) put_back(way_[i]);
    again_ = true;
    return false;
  }
  const auto first = static_cast<std::int32_t>(tree_.arcs.size());
  tree_.arcs.insert(tree_.arcs.end(), way_.begin(), way_.end());
  tree_.branches.push_back({v, rank, first, static_cast<std::int32_t>(tree_.arcs.size())});
  reach(rank, depth + 1);
  return true;
}

}  // namespace pycomm::network
