#include "flat/board.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "pycomm/flat.h"

namespace pycomm::flat {
namespace {

// All that ranks must agree on. The factor of premul_sum is each rank's own business.
using Terms = std::array<std::uint64_t, 5>;

Terms terms(const Descriptor& desc, std::uint64_t seq) noexcept {
  std::uint64_t head = 0;
  static_assert(offsetof(Descriptor, count) == sizeof head);
  std::memcpy(&head, &desc, sizeof head);  // kind, dtype, op, flags, root
  return {seq, head, desc.count, desc.plan, desc.counts};
}

std::uint64_t agreement_hash(const Descriptor& desc, std::uint64_t seq) noexcept {
  std::uint64_t h = 0x243f6a8885a308d3;  // digits of pi: nothing up the sleeve
  for (const std::uint64_t term : terms(desc, seq)) {
    h = (h ^ term) * 0x9e3779b97f4a7c15;
    h ^= h >> 32;
  }
  return h;
}

// "rank 3", "ranks 0, 2"
std::string name_ranks(const std::vector<int>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(ranks[i]);
  return text;
}

// Spinning is right while a peer runs on another core, and holds it up when it waits for ours, whoever else made it
// wait: hints go stale. So a wait that spun in vain halves the next one's spins, and one that did not lets them grow.
constexpr int kMostSpins = 2000;
constexpr int kFewestSpins = 16;
constexpr int kYields = 400;

// Ranks that told the same story.
struct Party {
  const Card* card;
  std::vector<int> ranks;
};

}  // namespace

Board::Board(Regions regions, int rank, int nranks, const Failure& failure, int spare_cores_hint)
    : regions_(std::move(regions)),
      rank_(rank),
      nranks_(nranks),
      failure_(failure),
      spins_(spare_cores_hint < 0 ? kFewestSpins : kMostSpins) {
  areas_.reserve(regions_.base.size());
  for (std::byte* base : regions_.base) areas_.push_back(reinterpret_cast<Area*>(base + sizeof(RegionHeader)));
}

void Board::introduce(const Descriptor& desc, std::uint64_t seq) noexcept {
  Area& mine = area(rank_);
  Card& card = mine.cards[stage_ & 1];
  card.desc = desc;
  card.seq = seq;
  mine.lines[stage_ & 1].line.agreement = agreement_hash(desc, seq);
}

void Board::show() noexcept {
  area(rank_).lines[stage_ & 1].line.stage.store(stage_, std::memory_order_release);
  full_fence();  // one for all the doorbells; see Doorbell::ring
  for (int peer = 0; peer < nranks_; ++peer) {
    if (peer != rank_) regions_.header(peer).bell.ring_after_fence();
  }
}

Waited Board::await(Deadline deadline) {
  int next = 0;  // all ranks before it have been seen in this stage
  const auto ready = [&]() noexcept {
    while (next < nranks_ && line(next).stage.load(std::memory_order_acquire) >= stage_) ++next;
    return next == nranks_;
  };
  for (int i = 0; i < spins_; ++i) {
    if (ready()) {
      spins_ = std::min(spins_ + spins_ / 8 + 1, kMostSpins);
      return Waited::ready;
    }
    if (failure_.failed()) return Waited::failed;
    cpu_relax();
  }
  spins_ = std::max(spins_ / 2, kFewestSpins);
  return wait_until(ready, regions_.header(rank_).bell, failure_, deadline, {.spins = 0, .yields = kYields});
}

void Board::withdraw() noexcept {
  area(rank_).end.withdrawn.store(1, std::memory_order_relaxed);
  full_fence();  // before the caller does anything to its memory
}

int Board::withdrawn() const noexcept {
  full_fence();  // after what was read of it
  for (int peer = 0; peer < nranks_; ++peer)
    if (area(peer).end.withdrawn.load(std::memory_order_relaxed) != 0) return peer;
  return -1;
}

void Board::await_failure(Deadline deadline) {
  const auto never = []() noexcept { return false; };
  static_cast<void>(wait_until(never, regions_.header(rank_).bell, failure_, deadline, {.spins = 0, .yields = 0}));
}

bool Board::agreed() const noexcept {
  const std::uint64_t mine = line(rank_).agreement;
  std::uint64_t differ = 0;
  for (int peer = 0; peer < nranks_; ++peer) differ |= line(peer).agreement ^ mine;
  return differ == 0;
}

Status Board::broken(Waited waited, const Descriptor& desc, std::uint64_t seq) const {
  if (waited == Waited::failed) return failure_.cause();
  std::vector<int> missing;
  for (int peer = 0; peer < nranks_; ++peer) {
    if (line(peer).stage.load(std::memory_order_acquire) < stage_) missing.push_back(peer);
  }
  return {Code::deadline,
          "deadline passed in operation " + std::to_string(seq) + " (" + describe(desc) + ") on rank " +
              std::to_string(rank_) + ": " + name_ranks(missing) +
              " did not arrive; find out what they are doing, or raise the timeout of the call or its group",
          missing};
}

// Reads only what was shown in this stage, so every rank comes to the same words.
Status Board::disagreement() const {
  std::vector<Party> parties;
  for (int peer = 0; peer < nranks_; ++peer) {
    const Card& card = area(peer).cards[stage_ & 1];
    const auto same = [&](const Party& party) {
      return terms(party.card->desc, party.card->seq) == terms(card.desc, card.seq);
    };
    const auto found = std::find_if(parties.begin(), parties.end(), same);
    if (found == parties.end()) {
      parties.push_back({&card, {peer}});
    } else {
      found->ranks.push_back(peer);
    }
  }
  const auto more = [](const Party& a, const Party& b) { return a.ranks.size() < b.ranks.size(); };
  const Party& majority = *std::max_element(parties.begin(), parties.end(), more);
  const auto first_seq = parties.front().card->seq;
  const bool one_seq =
      std::all_of(parties.begin(), parties.end(), [&](const Party& p) { return p.card->seq == first_seq; });

  std::string text = one_seq ? "ranks disagree in operation " + std::to_string(first_seq) + " of this group"
                             : "ranks disagree about which operation of this group comes next";
  std::vector<int> minority;
  const char* separator = ": ";
  for (const Party& party : parties) {
    text += separator + name_ranks(party.ranks) + ": ";
    if (!one_seq) text += "operation " + std::to_string(party.card->seq) + ", ";
    text += describe(party.card->desc);
    separator = "; ";
    if (&party != &majority) minority.insert(minority.end(), party.ranks.begin(), party.ranks.end());
  }
  return {Code::mismatch, text + "; make every rank call the same", minority};
}

}  // namespace pycomm::flat
