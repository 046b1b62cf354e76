// The heavy half of the verifier: matching of messages, and one run of all programs on symbols that settles meaning
// (V3) and progress (V4) and counts what a schedule costs.
//
// Sends and receives on bounded in-order channels form a Kahn network: whatever the order in which ranks advance, the
// k-th message of a channel is the same, and either all orders end or none does. One run therefore speaks for all; only
// memory that is still lent to a send needs more, and is judged by causality (lent.h).
//
// Nothing here is thread-safe; nothing blocks. Input must have passed the structural checks (V1) of pycomm/verify; rows
// that would reach outside the given arrays are refused with std::invalid_argument.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace pycomm::verify {

enum class OpKind : std::int32_t { copy, send, recv, reduce, recv_reduce };

// One row of a schedule's table: the columns of pycomm/schedule/ir.py.
struct Row {
  std::int32_t kind, peer, channel, src_space, src_start, dst_space, dst_start, count;

  OpKind op() const noexcept { return static_cast<OpKind>(kind); }
  bool sends() const noexcept { return op() == OpKind::send; }
  bool receives() const noexcept { return op() == OpKind::recv || op() == OpKind::recv_reduce; }
  bool combines() const noexcept { return op() == OpKind::reduce || op() == OpKind::recv_reduce; }
};
static_assert(sizeof(Row) == 32);

// All programs: rank r's are rows[offsets[r]] .. rows[offsets[r + 1]].
struct Programs {
  std::span<const Row> rows;
  std::span<const std::int64_t> offsets;

  int nranks() const noexcept { return static_cast<int>(offsets.size()) - 1; }
  std::int64_t first(int rank) const noexcept { return offsets[static_cast<std::size_t>(rank)]; }
  std::int64_t last(int rank) const noexcept { return offsets[static_cast<std::size_t>(rank) + 1]; }
  const Row& row(std::int64_t i) const noexcept { return rows[static_cast<std::size_t>(i)]; }
  int rank_of(std::int64_t row) const noexcept;
};

// A (source, destination, channel) on which more or fewer messages are sent than received.
struct Uneven {
  int src, dst, channel;
  std::int64_t sent, received;
};

// Which row each message comes from or goes to. `lane` numbers the (source, destination, channel) in use; both are -1
// for local ops, `partner` also for messages without a counterpart.
struct Pairs {
  std::vector<std::int32_t> lane;
  std::vector<std::int32_t> partner;
  std::vector<Uneven> uneven;
};

Pairs match(const Programs& programs);

// The same, lent. Messages all have a counterpart.
struct Matching {
  std::span<const std::int32_t> lane;
  std::span<const std::int32_t> partner;
  std::int32_t nlanes = 0;
};

// Checks that the arrays can have come from `match` on these programs.
Matching checked_matching(const Programs& programs, std::span<const std::int32_t> lane,
                          std::span<const std::int32_t> partner);

// The memory of all ranks as one run of places, each one chunk long. Place bases[3 * r + s] is index 0 of rank r's
// space s. `initial` is the global chunk that lies there at first (-1: nothing). At the end `wanted` must lie there
// (-1: anything), contributed by `source` or, where that is -1, by every rank.
struct Memory {
  std::span<const std::int64_t> bases;
  std::span<const std::int32_t> initial;
  std::span<const std::int32_t> wanted;
  std::span<const std::int32_t> source;

  std::int64_t place(int rank, std::int32_t space, std::int32_t start) const noexcept {
    return bases[3 * static_cast<std::size_t>(rank) + static_cast<std::size_t>(space)] + start;
  }
  std::size_t nplaces() const noexcept { return initial.size(); }
};

enum class Problem : std::uint8_t {
  reads_nothing,    // op, place: reads what was never written
  wrong_result,     // place; numbers: (rank, chunk, count) of every contribution in it
  no_result,        // place: never written
  overwrites_lent,  // op, place; numbers: the send's op, its peer
  deadlock,         // numbers: (rank, op) round the cycle
};

struct Finding {
  Problem problem;
  int rank;
  std::int64_t op;     // in the rank's program; -1 when it is about the end
  std::int64_t place;  // -1 when it is about none
  std::vector<std::int64_t> numbers;
};

// What one rank does, in messages and chunks.
struct Traffic {
  std::int64_t messages_sent = 0, messages_received = 0, chunks_sent = 0, chunks_received = 0, chunks_reduced = 0;
};

struct Outcome {
  std::vector<Finding> findings;  // at most kMaxFindings of each problem
  std::int64_t steps = 0;         // messages on the longest chain of messages that wait for one another
  std::vector<Traffic> traffic;   // of each rank, as far as it came
};

constexpr std::size_t kMaxFindings = 100;

// Runs every program on symbols. `idempotent`: a contribution may count more than once (barrier).
Outcome run(const Programs& programs, const Matching& matching, const Memory& memory, int capacity, bool idempotent);

// The fewest unmatched messages per lane with which all programs end; -1 when no number is enough.
std::int64_t smallest_capacity(const Programs& programs, const Matching& matching);

}  // namespace pycomm::verify
