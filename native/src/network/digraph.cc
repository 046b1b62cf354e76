#include "network/digraph.h"

#include <limits>
#include <stdexcept>

namespace pycomm::network {

Digraph::Digraph(int ranks, int vertices, std::span<const std::int32_t> sources, std::span<const std::int32_t> targets)
    : nranks(ranks),
      nvertices(vertices),
      src(sources.begin(), sources.end()),
      dst(targets.begin(), targets.end()),
      first(at(vertices) + 1, 0) {
  if (ranks < 0 || vertices < ranks) throw std::invalid_argument("there must be as many vertices as ranks or more");
  if (src.size() != dst.size()) throw std::invalid_argument("every arc has one source and one destination");
  if (src.size() > at(std::numeric_limits<std::int32_t>::max() / 2)) throw std::invalid_argument("more than 2^30 arcs");
  for (std::size_t a = 0; a < src.size(); ++a) {
    if (src[a] < 0 || src[a] >= vertices || dst[a] < 0 || dst[a] >= vertices || src[a] == dst[a])
      throw std::invalid_argument("an arc leads from or to no vertex, or to where it starts");
    ++first[at(src[a]) + 1];
    ++first[at(dst[a]) + 1];
  }
  for (std::size_t v = 0; v < at(vertices); ++v) first[v + 1] += first[v];
  other.resize(2 * src.size());
  twin.resize(2 * src.size());
  arc.resize(2 * src.size());
  half.resize(src.size());
  std::vector<std::int32_t> next(first.begin(), first.end() - 1);
  for (std::size_t a = 0; a < src.size(); ++a) {
    const std::int32_t in = next[at(dst[a])]++;
    const std::int32_t out = next[at(src[a])]++;
    other[at(in)] = src[a];
    other[at(out)] = dst[a];
    twin[at(in)] = out;
    twin[at(out)] = in;
    arc[at(in)] = arc[at(out)] = static_cast<std::int32_t>(a);
    half[a] = in;
  }
}

Int128 entering(const Digraph& graph, std::span<const std::int64_t> capacity, std::span<const std::uint8_t> inside) {
  Int128 sum = 0;
  for (std::size_t a = 0; a < capacity.size(); ++a)
    if (inside[at(graph.dst[a])] != 0 && inside[at(graph.src[a])] == 0) sum += capacity[a];
  return sum;
}

}  // namespace pycomm::network
