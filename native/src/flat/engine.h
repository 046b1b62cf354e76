// The operations of one rank on a board.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "flat/board.h"
#include "flat/route.h"
#include "flat/stream.h"
#include "pycomm/flat.h"
#include "pycomm/reduce.h"

namespace pycomm {

class Flat::Engine {
 public:
  Engine(Regions regions, int rank, int nranks, const Failure& failure, int spare_cores_hint);
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
    bool streams = false;  // results go past the caches
  };

  // Runs `rounds` stages: fill(i) writes this rank's slot, drain(i) reads those of the peers.
  template <typename Fill, typename Drain>
  Status stages(const Op& op, std::size_t rounds, Fill&& fill, Drain&& drain) {
    for (std::size_t i = 0; i < rounds; ++i) {
      board_.advance();
      fill(i);
      PYCOMM_TRY(board_.meet(op.call.desc, op.seq, i == 0, op.deadline));
      drain(i);
    }
    if (op.streams) full_fence();  // before anybody is told that the result is there
    return {};
  }

  Status run_alone(const FlatCall& call);
  Status move(Op& op);
  Status reduce_whole(Op& op);
  Status reduce_parts(Op& op);
  Status reduce_blocks(Op& op);

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
  // Copies out of a slot, or within this rank's memory.
  void deliver(const Op& op, std::byte* to, const std::byte* from, std::size_t nbytes) const noexcept;

  flat::Board board_;
  int rank_;
  int nranks_;
  const Failure& failure_;
  flat::Route route_;
  std::vector<const void*> inputs_;
};

}  // namespace pycomm
