// Pairs the k-th send of each (source, destination, channel) with its k-th receive.
#include <algorithm>
#include <stdexcept>
#include <unordered_map>

#include "verify/verify.h"

namespace pycomm::verify {
namespace {

struct Lane {
  int src, dst, channel;
  std::int64_t sent = 0, received = 0;
};

// Numbers the lanes in the order in which they are first met. Programs use few peers at a time, so the table is asked
// for runs of rows on the same lane only once.
class Lanes {
 public:
  std::int32_t number(int src, int dst, int channel) {
    const std::uint64_t pair = static_cast<std::uint64_t>(src) * 0x1'0000'0001 + static_cast<std::uint64_t>(dst);
    const Key key{src, dst, channel, pair};
    const auto [found, fresh] = numbers_.try_emplace(key, static_cast<std::int32_t>(lanes_.size()));
    if (fresh) lanes_.push_back({src, dst, channel});
    return found->second;
  }
  std::vector<Lane>& all() noexcept { return lanes_; }

 private:
  struct Key {
    int src, dst, channel;
    std::uint64_t pair;
    bool operator==(const Key& o) const noexcept { return src == o.src && dst == o.dst && channel == o.channel; }
  };
  struct Hash {
    std::size_t operator()(const Key& key) const noexcept {
      std::uint64_t x = key.pair * 0x9e3779b97f4a7c15 + static_cast<std::uint64_t>(key.channel) * 0xc2b2ae3d27d4eb4f;
      x ^= x >> 29;
      return static_cast<std::size_t>(x * 0xbf58476d1ce4e5b9);
    }
  };
  std::unordered_map<Key, std::int32_t, Hash> numbers_;
  std::vector<Lane> lanes_;
};

}  // namespace

int Programs::rank_of(std::int64_t row) const noexcept {
  const auto after = std::upper_bound(offsets.begin(), offsets.end(), row);
  return static_cast<int>(after - offsets.begin()) - 1;
}

Matching match(const Programs& programs) {
  Matching result;
  result.lane.assign(programs.rows.size(), -1);
  result.partner.assign(programs.rows.size(), -1);
  Lanes lanes;
  for (int rank = 0; rank < programs.nranks(); ++rank) {
    for (std::int64_t i = programs.first(rank); i < programs.last(rank); ++i) {
      const Row& row = programs.row(i);
      if (!row.sends() && !row.receives()) continue;
      if (row.peer < 0 || row.peer >= programs.nranks()) throw std::invalid_argument("a peer is out of range");
      const int src = row.sends() ? rank : row.peer;
      const int dst = row.sends() ? row.peer : rank;
      const std::int32_t lane = lanes.number(src, dst, row.channel);
      result.lane[static_cast<std::size_t>(i)] = lane;
      Lane& counts = lanes.all()[static_cast<std::size_t>(lane)];
      ++(row.sends() ? counts.sent : counts.received);
    }
  }
  // Rows of each lane's sends, one lane after the other; receives then meet them in the same order.
  const std::vector<Lane>& all = lanes.all();
  std::vector<std::int64_t> next_send(all.size() + 1);
  for (std::size_t k = 0; k < all.size(); ++k) next_send[k + 1] = next_send[k] + all[k].sent;
  std::vector<std::int64_t> next_receive = next_send;
  std::vector<std::int32_t> sends(static_cast<std::size_t>(next_send.back()));
  for (std::size_t i = 0; i < programs.rows.size(); ++i)
    if (programs.rows[i].sends())
      sends[static_cast<std::size_t>(next_send[static_cast<std::size_t>(result.lane[i])]++)] =
          static_cast<std::int32_t>(i);
  for (std::size_t i = 0; i < programs.rows.size(); ++i) {
    if (!programs.rows[i].receives()) continue;
    const auto lane = static_cast<std::size_t>(result.lane[i]);
    if (next_receive[lane] == next_send[lane]) continue;  // no send is left: reported as uneven
    const auto send = static_cast<std::size_t>(sends[static_cast<std::size_t>(next_receive[lane]++)]);
    result.partner[i] = static_cast<std::int32_t>(send);
    result.partner[send] = static_cast<std::int32_t>(i);
  }
  for (const Lane& lane : all)
    if (lane.sent != lane.received)
      result.uneven.push_back({lane.src, lane.dst, lane.channel, lane.sent, lane.received});
  result.nlanes = static_cast<std::int32_t>(all.size());
  return result;
}

}  // namespace pycomm::verify
