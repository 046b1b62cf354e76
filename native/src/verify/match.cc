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

// Numbers the lanes in the order in which they are first met: through a table of all possible lanes where that is
// small, else through a hash table.
class Lanes {
 public:
  Lanes(const Programs& programs, std::uint64_t channels)
      : nranks_(static_cast<std::uint64_t>(programs.nranks())), channels_(channels) {
    constexpr std::uint64_t kLargestTable = std::uint64_t{1} << 23;
    if (channels_ <= kLargestTable && nranks_ * nranks_ * channels_ <= kLargestTable)
      table_.assign(nranks_ * nranks_ * channels_, -1);
  }

  std::int32_t number(int src, int dst, int channel) {
    const std::uint64_t key =
        (static_cast<std::uint64_t>(src) * nranks_ + static_cast<std::uint64_t>(dst)) * channels_ +
        static_cast<std::uint64_t>(channel);
    const auto fresh = static_cast<std::int32_t>(lanes_.size());
    std::int32_t& number = table_.empty() ? numbers_.try_emplace(key, -1).first->second : table_[key];
    if (number < 0) {
      number = fresh;
      lanes_.push_back({src, dst, channel});
    }
    return number;
  }
  std::vector<Lane>& all() noexcept { return lanes_; }

 private:
  std::uint64_t nranks_, channels_;
  std::vector<std::int32_t> table_;
  std::unordered_map<std::uint64_t, std::int32_t> numbers_;
  std::vector<Lane> lanes_;
};

// Channels in use, and a guard: nothing below looks outside its tables.
std::uint64_t count_channels(const Programs& programs) {
  std::int32_t most = 0;
  for (const Row& row : programs.rows) {
    if (!row.sends() && !row.receives()) continue;
    if (row.peer < 0 || row.peer >= programs.nranks()) throw std::invalid_argument("a peer is out of range");
    if (row.channel < 0) throw std::invalid_argument("a channel is out of range");
    most = std::max(most, row.channel);
  }
  return static_cast<std::uint64_t>(most) + 1;
}

}  // namespace

int Programs::rank_of(std::int64_t row) const noexcept {
  const auto after = std::upper_bound(offsets.begin(), offsets.end(), row);
  return static_cast<int>(after - offsets.begin()) - 1;
}

Pairs match(const Programs& programs) {
  Pairs result;
  result.lane.assign(programs.rows.size(), -1);
  result.partner.assign(programs.rows.size(), -1);
  Lanes lanes(programs, count_channels(programs));
  for (int rank = 0; rank < programs.nranks(); ++rank) {
    for (std::int64_t i = programs.first(rank); i < programs.last(rank); ++i) {
      const Row& row = programs.row(i);
      if (!row.sends() && !row.receives()) continue;
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
  return result;
}

Matching checked_matching(const Programs& programs, std::span<const std::int32_t> lane,
                          std::span<const std::int32_t> partner) {
  const std::size_t n = programs.rows.size();
  if (lane.size() != n || partner.size() != n)
    throw std::invalid_argument("lane and partner must have one entry per op");
  std::int32_t most = -1;
  for (std::size_t i = 0; i < n; ++i) {
    const bool message = programs.rows[i].sends() || programs.rows[i].receives();
    if (!message) {
      if (lane[i] != -1) throw std::invalid_argument("a local op has a lane");
      continue;
    }
    if (lane[i] < 0 || static_cast<std::size_t>(lane[i]) >= n) throw std::invalid_argument("a message has no lane");
    if (partner[i] < 0 || static_cast<std::size_t>(partner[i]) >= n ||
        programs.rows[static_cast<std::size_t>(partner[i])].sends() == programs.rows[i].sends() ||
        lane[static_cast<std::size_t>(partner[i])] != lane[i])
      throw std::invalid_argument("a message has no counterpart");
    most = std::max(most, lane[i]);
  }
  return {lane, partner, most + 1};
}

}  // namespace pycomm::verify
