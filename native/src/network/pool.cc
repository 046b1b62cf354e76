#include "network/pool.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <utility>

namespace pycomm::network {

bool Pool::add(std::vector<std::uint8_t>&& inside) {
  if (std::find(inside_.begin(), inside_.end(), inside) != inside_.end()) return false;
  const auto set = static_cast<std::int32_t>(inside_.size());
  for (std::size_t a = 0; a < graph_.src.size(); ++a) {
    const bool from = inside[at(graph_.src[a])] != 0;
    const bool to = inside[at(graph_.dst[a])] != 0;
    if (to && !from) entered_[a].push_back(set);
    if (from && !to && graph_.src[a] >= graph_.nranks) left_[a].push_back(set);
  }
  for (std::size_t r = 0; r < around_.size(); ++r)
    if (inside[r] != 0) around_[r].push_back(set);
  inside_.push_back(std::move(inside));
  return true;
}

void Pool::keep(int count) {
  if (count >= size()) return;
  inside_.resize(at(count));
  for (auto* lists : {&entered_, &left_, &around_})
    for (std::vector<std::int32_t>& sets : *lists)
      sets.erase(std::lower_bound(sets.begin(), sets.end(), count), sets.end());
}

std::vector<std::int64_t> Pool::slacks(std::span<const std::int64_t> capacity,
                                       std::span<const std::int64_t> roots) const {
  std::vector<std::int64_t> slack(inside_.size(), 0);
  for (std::size_t a = 0; a < entered_.size(); ++a)
    for (const std::int32_t set : entered_[a]) slack[at(set)] += capacity[a];
  for (std::size_t set = 0; set < inside_.size(); ++set)
    for (std::size_t r = 0; r < roots.size(); ++r)
      if (inside_[set][r] == 0) slack[set] -= roots[r];
  return slack;
}

std::vector<std::vector<std::uint8_t>> clusters(const Digraph& graph, std::span<const std::int64_t> capacity) {
  std::map<std::int64_t, std::vector<std::size_t>, std::greater<>> by_capacity;
  for (std::size_t a = 0; a < capacity.size(); ++a)
    if (capacity[a] > 0) by_capacity[capacity[a]].push_back(a);
  std::vector<std::int32_t> parent(at(graph.nvertices));
  std::iota(parent.begin(), parent.end(), 0);
  const auto top = [&parent](std::int32_t v) {
    while (parent[at(v)] != v) v = parent[at(v)] = parent[at(parent[at(v)])];
    return v;
  };
  std::vector<std::vector<std::uint8_t>> found;
  std::vector<std::int32_t> sizes(at(graph.nvertices), 0);  // ranks of each cluster when it was last told
  for (const auto& [value, arcs] : by_capacity) {
    if (by_capacity.size() > 64 && found.size() > 4 * at(graph.nranks)) break;  // no two links alike: no clusters
    for (const std::size_t a : arcs) parent[at(top(graph.src[a]))] = top(graph.dst[a]);
    std::vector<std::int32_t> ranks(at(graph.nvertices), 0);
    for (std::int32_t r = 0; r < graph.nranks; ++r) ++ranks[at(top(r))];
    for (std::int32_t v = 0; v < graph.nvertices; ++v) {
      if (top(v) != v || ranks[at(v)] < 2 || ranks[at(v)] == graph.nranks || ranks[at(v)] == sizes[at(v)]) continue;
      sizes[at(v)] = ranks[at(v)];
      std::vector<std::uint8_t> inside(at(graph.nvertices), 0);
      for (std::int32_t u = 0; u < graph.nvertices; ++u) inside[at(u)] = top(u) == v ? 1 : 0;
      found.push_back(std::move(inside));
    }
  }
  return found;
}

}  // namespace pycomm::network
