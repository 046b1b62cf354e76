// Large calls past the slots: ranks show where their memory is, read each other's, and stay until all have read.
//
//   stage        1         [ 2 ]                          3                 [ 4 ]
//   shows        offer     whether it found all proofs    nothing           nothing
//   afterwards             reads; allreduce: its part     reads results     done
//
// Stage 2 is only in the first such call of a group, stage 4 only in allreduce.
#include <algorithm>
#include <cstring>
#include <string>

#include "base/socket.h"
#include "flat/engine.h"

namespace pycomm {

using flat::Extent;
using flat::Offer;

namespace {

constexpr std::size_t kLine = 64;
// Read at once: between two looks at the group's failure.
constexpr std::size_t kReadBytes = std::size_t{4} << 20;
// What is read of all ranks before it is combined: it stays in the second-level cache. Of one rank at least a piece
// that is worth a call of the kernel.
constexpr std::size_t kCombinedBytes = std::size_t{256} << 10;
constexpr std::size_t kLeastPieceBytes = std::size_t{16} << 10;
// A death or a failure that spoils a read is known to the group long before.
constexpr double kNews_s = 5;

}  // namespace

// Whether all ranks read each other's memory in this call: they all come to the same answer.
Status Flat::Engine::offer(Op& op, std::size_t nbytes, bool still, bool& accepted) {
  accepted = false;
  if (memory_.refused()) return {};
  const Offer mine = memory_.offer(op.call.send, nbytes, op.call.recv, still);
  PYCOMM_TRY(stage(op, [&] { std::memcpy(board_.inline_payload(rank_), &mine, sizeof mine); }));
  for (int peer = 0; peer < nranks_; ++peer) memory_.note(peer, board_.inline_payload(peer));
  if (!memory_.proved()) {
    const std::byte found{memory_.finds_proofs()};
    PYCOMM_TRY(stage(op, [&] { *board_.inline_payload(rank_) = found; }));
    bool all = true;
    for (int peer = 0; peer < nranks_; ++peer) all = all && *board_.inline_payload(peer) != std::byte{0};
    memory_.settle(all);
  }
  accepted = memory_.proved() && memory_.all_ready();
  return {};
}

Status Flat::Engine::read(const Op& op, int src, std::byte* to, std::uint64_t from, std::size_t nbytes) {
  for (std::size_t done = 0; done < nbytes; done += kReadBytes) {
    if (failure_.failed()) {
      board_.withdraw();
      return failure_.cause();
    }
    const std::size_t now = std::min(kReadBytes, nbytes - done);
    if (const int error = memory_.read(src, to + done, from + done, now); error != 0) return unreadable(op, src, error);
  }
  return {};
}

// Its process died, or it left because the group failed: this rank hears of it in a moment.
Status Flat::Engine::unreadable(const Op& op, int src, int error) {
  board_.withdraw();
  board_.await_failure({std::min(op.deadline.at_ns, Deadline::after(kNews_s).at_ns)});
  if (failure_.failed()) return failure_.cause();
  return {error == ESRCH ? Code::peer_lost : Code::resource,
          "rank " + std::to_string(rank_) + " cannot read the memory of rank " + std::to_string(src) + ": " +
              errno_text("process_vm_readv", error) + "; PYCOMM_CMA=off does without it",
          {src}};
}

// The last stage; behind it memory is the caller's again. A rank may have shown it and then left at its deadline, so
// what was read counts only if nobody had left by then.
Status Flat::Engine::leave_together(Op& op) {
  if (const int gone = board_.withdrawn(); gone >= 0) return unreadable(op, gone, ESRCH);
  return stage(op, [] {});
}

Status Flat::Engine::move_by_reading(Op& op) {
  for (int hop = 1; hop < nranks_; ++hop) {  // so that not all read from one
    const int src = (rank_ + hop) % nranks_;
    const auto s = static_cast<std::size_t>(src);
    const Extent& in = route_.incoming[s];
    PYCOMM_TRY(read(op, src, op.call.recv + in.at, memory_.of(src).send + route_.source[s], in.nbytes));
  }
  const auto me = static_cast<std::size_t>(rank_);
  const Extent& own = route_.incoming[me];
  copy_bytes(op.call.recv + own.at, op.call.send + route_.outgoing[me].at, own.nbytes);
  return leave_together(op);
}

// Combines everybody's elements [begin, begin + count) of send into `out`.
Status Flat::Engine::combine_by_reading(Op& op, std::size_t begin, std::size_t count, std::byte* out) {
  const auto n = static_cast<std::size_t>(nranks_);
  const std::size_t piece = std::max(kCombinedBytes / n, kLeastPieceBytes) / op.item;
  pieces_.resize(n * piece * op.item);
  for (std::size_t done = 0; done < count; done += piece) {
    const std::size_t now = std::min(piece, count - done);
    const std::size_t at = (begin + done) * op.item;
    for (int peer = 0; peer < nranks_; ++peer) {
      const auto p = static_cast<std::size_t>(peer);
      std::byte* copy = pieces_.data() + p * piece * op.item;
      if (peer != rank_) PYCOMM_TRY(read(op, peer, copy, memory_.of(peer).send + at, now * op.item));
      inputs_[p] = peer == rank_ ? op.call.send + at : copy;
    }
    combine(op, out + done * op.item, now);
  }
  return {};
}

// Rank r combines part r of the array where its result belongs; then all read the other parts of the result.
Status Flat::Engine::allreduce_by_reading(Op& op) {
  const auto n = static_cast<std::size_t>(nranks_);
  const std::size_t count = op.call.desc.count;
  const std::size_t usual = (count / n / kLine + 1) * kLine;
  const auto begin = [&](int part) { return std::min(static_cast<std::size_t>(part) * usual, count); };
  const std::size_t mine = begin(rank_);
  PYCOMM_TRY(combine_by_reading(op, mine, begin(rank_ + 1) - mine, op.call.recv + mine * op.item));
  PYCOMM_TRY(stage(op, [] {}));
  for (int hop = 1; hop < nranks_; ++hop) {
    const int src = (rank_ + hop) % nranks_;
    const std::size_t at = begin(src) * op.item;
    PYCOMM_TRY(read(op, src, op.call.recv + at, memory_.of(src).recv + at, begin(src + 1) * op.item - at));
  }
  return leave_together(op);
}

}  // namespace pycomm
