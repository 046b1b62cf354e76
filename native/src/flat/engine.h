// The operations of one rank on a board.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "flat/board.h"
#include "flat/peer_memory.h"
#include "flat/route.h"
#include "pycomm/flat.h"
#include "pycomm/reduce.h"

namespace pycomm {

class Flat::Engine {
 public:
  Engine(Regions regions, int rank, int nranks, const Failure& failure, const FlatOptions& options);
  Status run(const FlatCall& call, std::uint64_t seq, Deadline deadline);

  Status agree(const Descriptor& desc, std::uint64_t seq, Deadline deadline) {
    if (failure_.failed()) return failure_.cause();
    if (nranks_ == 1) return {};
    board_.advance();
    return board_.meet(desc, seq, true, deadline);
  }

 private:
  // One operation while it runs.
  struct Op {
    const FlatCall& call;
    std::uint64_t seq;
    Deadline deadline;
    std::size_t item;      // bytes per element
    bool wants;            // this rank has a result
    bool scales;           // contributions are multiplied by the factor on their way into the slot
    int divisor;           // of the result
    ReduceManyFn combine;  // null for kinds that do not reduce
    bool agreed = false;   // the first stage is over
  };

  // Runs one stage: fill() writes this rank's line or slot.
  template <typename Fill>
  Status stage(Op& op, Fill&& fill) {
    board_.advance();
    fill();
    return board_.meet(op.call.desc, op.seq, !std::exchange(op.agreed, true), op.deadline);
  }
  // Runs `rounds` stages: fill(i) writes this rank's slot, drain(i) reads those of the peers.
  template <typename Fill, typename Drain>
  Status stages(Op& op, std::size_t rounds, Fill&& fill, Drain&& drain) {
    for (std::size_t i = 0; i < rounds; ++i) {
      PYCOMM_TRY(stage(op, [&] { fill(i); }));
      drain(i);
    }
    return {};
  }

  Status run_alone(const FlatCall& call);
  Status move(Op& op);
  Status reduce_whole(Op& op);
  Status reduce_parts(Op& op);
  Status reduce_blocks(Op& op);

  // Past the slots, in single_copy.cc.
  Status offer(Op& op, std::size_t nbytes, bool still, bool& accepted);
  Status move_by_reading(Op& op);
  Status allreduce_by_reading(Op& op);
  Status combine_by_reading(Op& op, std::size_t begin, std::size_t count, std::byte* out);
  Status read(const Op& op, int src, std::byte* to, std::uint64_t from, std::size_t nbytes);
  Status unreadable(const Op& op, int src, int error);
  Status leave_together(Op& op);
  // Bytes of each rank's part from which on reductions read. What they read they still copy, into a cache, so they gain
  // less than what only moves.
  std::size_t reduce_by_reading_from() const noexcept { return 8 * options_.single_copy_from; }

  // Payload of `rank` in this stage.
  const std::byte* payload(int rank, bool is_inline) const noexcept {
    return is_inline ? board_.inline_payload(rank) : board_.slot(rank);
  }
  std::byte* my_payload(bool is_inline) const noexcept {
    return is_inline ? board_.inline_payload(rank_) : board_.slot(rank_);
  }
  // Puts `count` of this rank's elements where peers read them.
  void contribute(const Op& op, std::byte* slot, const std::byte* from, std::size_t count) const noexcept;
  // Combines `inputs_`, one per rank, into `out`.
  void combine(const Op& op, std::byte* out, std::size_t count) const noexcept;

  flat::Board board_;
  int rank_;
  int nranks_;
  const Failure& failure_;
  const FlatOptions options_;
  flat::PeerMemory memory_;
  flat::Route route_;
  std::vector<const void*> inputs_;
  std::vector<std::byte> pieces_;  // read of peers, to be combined
};

}  // namespace pycomm
