#include "verify/contributions.h"

#include <limits>
#include <map>
#include <stdexcept>

namespace pycomm::verify {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014).
constexpr std::uint64_t mix(std::uint64_t x) noexcept {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

constexpr std::uint64_t saturating_add(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t c = a + b;
  return c < a ? std::numeric_limits<std::uint64_t>::max() : c;
}

}  // namespace

Contributions::Contributions(int nranks, bool idempotent)
    : nranks_(nranks), idempotent_(idempotent), words_((static_cast<std::size_t>(nranks) + 63) / 64) {
  add({0, 0, false}, {0, 0});  // kNothing
}

Contributions::Print Contributions::weight(int rank, int chunk) noexcept {
  const std::uint64_t key = (static_cast<std::uint64_t>(static_cast<std::uint32_t>(rank)) << 32) |
                            static_cast<std::uint64_t>(static_cast<std::uint32_t>(chunk));
  return {mix(mix(key)), mix(~key)};
}

Node Contributions::add(Parts parts, Print print) {
  if (parts_.size() == std::numeric_limits<Node>::max()) throw std::length_error("too many sums in one schedule");
  parts_.push_back(parts);
  prints_.push_back(print);
  if (idempotent_) reached_.resize(reached_.size() + words_);
  return static_cast<Node>(parts_.size() - 1);
}

Node Contributions::leaf(int rank, int chunk) {
  const Node node =
      add({static_cast<std::uint32_t>(rank), static_cast<std::uint32_t>(chunk), true}, weight(rank, chunk));
  if (idempotent_) {
    const auto r = static_cast<std::size_t>(rank);
    reached_[node * words_ + r / 64] |= std::uint64_t{1} << (r % 64);
  }
  return node;
}

Node Contributions::sum(Node a, Node b) {
  const Print& p = prints_[a];
  const Print& q = prints_[b];
  const Node node = add({a, b, false}, {p[0] + q[0], p[1] + q[1]});
  if (idempotent_)
    for (std::size_t w = 0; w < words_; ++w)
      reached_[node * words_ + w] = reached_[a * words_ + w] | reached_[b * words_ + w];
  return node;
}

bool Contributions::is_leaf_of(Node node, int rank, int chunk) const noexcept {
  const Parts& parts = parts_[node];
  return parts.leaf && parts.a == static_cast<std::uint32_t>(rank) && parts.b == static_cast<std::uint32_t>(chunk);
}

bool Contributions::is_sum_of_all(Node node, int chunk) {
  if (idempotent_) {
    for (std::size_t r = 0; r < static_cast<std::size_t>(nranks_); ++r)
      if (((reached_[node * words_ + r / 64] >> (r % 64)) & 1) == 0) return false;
    return true;
  }
  const auto c = static_cast<std::size_t>(chunk);
  if (c >= all_.size()) {
    all_.resize(c + 1);
    all_known_.resize(c + 1);
  }
  if (!all_known_[c]) {
    Print total{0, 0};
    for (int r = 0; r < nranks_; ++r) {
      const Print w = weight(r, chunk);
      total = {total[0] + w[0], total[1] + w[1]};
    }
    all_[c] = total;
    all_known_[c] = true;
  }
  return prints_[node] == all_[c];
}

std::vector<Contribution> Contributions::explain(Node node) const {
  // A sum's parts have smaller numbers than the sum, so one pass downwards meets every node after all its uses.
  std::vector<std::uint64_t> times(static_cast<std::size_t>(node) + 1);
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint64_t> found;
  times[node] = 1;
  for (Node i = node; i > kNothing; --i) {
    if (times[i] == 0) continue;
    const Parts& parts = parts_[i];
    if (parts.leaf) {
      std::uint64_t& count = found[{parts.a, parts.b}];
      count = saturating_add(count, times[i]);
    } else {
      times[parts.a] = saturating_add(times[parts.a], times[i]);
      times[parts.b] = saturating_add(times[parts.b], times[i]);
    }
  }
  std::vector<Contribution> result;
  result.reserve(found.size());
  for (const auto& [who, count] : found) result.push_back({who.first, who.second, count});
  return result;
}

}  // namespace pycomm::verify
