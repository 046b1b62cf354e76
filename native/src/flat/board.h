// The board: what every rank shows to its peers, stage by stage.
//
// A group's life is a row of stages 1, 2, 3, ... common to all its ranks. In stage k a rank fills its slot k % 2, shows
// k in its line k % 2, and waits until all its peers show k; then it reads their slots. Two of each are enough:
//
//   rank shows k+1  =>  it has read what it wants of stage k
//   rank fills the slot of k+2 only after all showed k+1, that is after all have read stage k, whose slot it was
//
// so nobody needs to acknowledge anything, and a rank may fill the next slot while slower ones still read the last.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "pycomm/region.h"
#include "pycomm/status.h"
#include "pycomm/types.h"
#include "pycomm/wait.h"

namespace pycomm::flat {

constexpr std::size_t kInlineBytes = 48;                  // payload that travels in the line itself
constexpr std::size_t kSlotBytes = std::size_t{1} << 20;  // per rank and parity; memory is taken when first used

// The one cache line that peers poll. In the first stage of an operation it carries what the rank thinks the operation
// is (a hash); the operation's data too, when it is small.
struct alignas(64) Line {
  std::atomic<std::uint64_t> stage;
  std::uint64_t agreement;
  std::byte payload[kInlineBytes];
};
static_assert(sizeof(Line) == 64);

// The whole truth behind `agreement`, read by peers only when hashes differ.
struct alignas(64) Card {
  Descriptor desc;
  std::uint64_t seq;
};

// Lines lie 128 bytes apart: prefetchers fetch pairs, and must not drag along what the owner is writing.
struct alignas(64) Area {
  struct alignas(64) {
    Line line;
    std::byte gap[64];
  } lines[2];
  Card cards[2];
  struct alignas(64) {
    std::atomic<std::uint32_t> withdrawn;
  } end;
  std::byte gap[4096 - sizeof(RegionHeader) - std::size_t{2} * 128 - 2 * sizeof(Card) - 64];  // slots begin on a page
  std::byte slots[2][kSlotBytes];
};
static_assert(sizeof(RegionHeader) + offsetof(Area, slots) == 4096);

// One rank's view of the board. Not thread-safe.
class Board {
 public:
  Board(Regions regions, int rank, int nranks, const Failure& failure, int spare_cores_hint);

  int rank() const noexcept { return rank_; }
  int nranks() const noexcept { return nranks_; }

  // Moves on to the next stage: from here on, slot() and line() are those of the new stage.
  void advance() noexcept { ++stage_; }
  std::byte* slot(int rank) const noexcept { return area(rank).slots[stage_ & 1]; }
  std::byte* inline_payload(int rank) const noexcept { return area(rank).lines[stage_ & 1].line.payload; }
  // This rank's slot of the next stage. May be written once meet() of the current one has returned.
  std::byte* next_slot() const noexcept { return area(rank_).slots[(stage_ + 1) & 1]; }

  // Shows the current stage and waits for all peers to show it. `first`: it is the first of operation `seq`, which this
  // rank believes to be `desc`; fails with mismatch, on all ranks alike, when they do not believe the same.
  Status meet(const Descriptor& desc, std::uint64_t seq, bool first, Deadline deadline) {
    if (first) introduce(desc, seq);
    show();
    const Waited waited = await(deadline);
    if (waited != Waited::ready) {
      withdraw();
      return broken(waited, desc, seq);
    }
    return first && !agreed() ? disagreement() : Status();
  }
  // Says that this rank leaves an operation that failed, for good: its caller's memory is no longer there for others.
  // meet() says so itself when it fails.
  void withdraw() noexcept;
  // A rank that has withdrawn, or -1. Whatever was read of a peer's memory before is good if there is none.
  int withdrawn() const noexcept;
  // Sleeps until the group has failed, or the deadline.
  void await_failure(Deadline deadline);

 private:
  Area& area(int rank) const noexcept { return *areas_[static_cast<std::size_t>(rank)]; }
  const Line& line(int rank) const noexcept { return area(rank).lines[stage_ & 1].line; }
  void introduce(const Descriptor& desc, std::uint64_t seq) noexcept;
  void show() noexcept;
  Waited await(Deadline deadline);
  bool agreed() const noexcept;
  Status broken(Waited waited, const Descriptor& desc, std::uint64_t seq) const;
  Status disagreement() const;

  Regions regions_;
  std::vector<Area*> areas_;
  int rank_;
  int nranks_;
  const Failure& failure_;
  int spins_;  // before the next wait gives its core away; follows what recent waits needed
  std::uint64_t stage_ = 0;
};

}  // namespace pycomm::flat
