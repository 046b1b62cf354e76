#include "pycomm/flat.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

#include "flat/engine.h"

namespace pycomm {

using flat::Extent;
using flat::kInlineBytes;
using flat::Route;

namespace {

constexpr std::size_t kLine = 64;
// What a rank puts into its slot per stage: enough to make a stage's meeting cheap, and little enough that slots stay
// in the second-level cache between writing and reading. In parts a rank reads and combines but its share of that, so
// there a stage may be larger, which saves switches between ranks when they share cores.
constexpr std::size_t kStageBytes = std::size_t{128} << 10;
constexpr std::size_t kPartsStageBytes = std::size_t{256} << 10;
// From this size of result on, cutting the work in parts pays for a second stage.
constexpr std::size_t kPartsFrom = std::size_t{64} << 10;

constexpr std::size_t div_up(std::size_t a, std::size_t b) noexcept { return a / b + (a % b != 0); }
constexpr std::size_t round_up(std::size_t a, std::size_t b) noexcept { return div_up(a, b) * b; }

// One of `n` equal pieces of a stage, in whole cache lines.
constexpr std::size_t piece_of(std::size_t stage, std::size_t n) noexcept {
  return std::max(stage / n / kLine, std::size_t{1}) * kLine;
}

// The part of [0, total) that round `i` of `step` handles.
constexpr std::size_t share(std::size_t total, std::size_t i, std::size_t step) noexcept {
  return total > i * step ? std::min(step, total - i * step) : 0;
}

bool reduces(Kind kind) noexcept {
  return kind == Kind::allreduce || kind == Kind::reduce || kind == Kind::reduce_scatter ||
         kind == Kind::reduce_scatterv;
}

Status no_such_reduction(const Descriptor& desc) {
  return {Code::unsupported, "the reduce op is undefined on the type: " + describe(desc)};
}

// In place, blocks of an alltoall arrive where others are still to be read.
bool swaps(const FlatCall& call) noexcept {
  return (call.desc.kind == Kind::alltoall || call.desc.kind == Kind::alltoallv) && call.recv == call.send;
}

// How far the outgoing transfers reach into send.
std::size_t sent_bytes(const Route& route) noexcept {
  std::size_t end = 0;
  for (const Extent& out : route.outgoing) end = std::max(end, out.at + out.nbytes);
  return end;
}

// In place, a block of an alltoallv may arrive where another one still waits to be sent.
bool overwrites_itself(const FlatCall& call, const Route& route) noexcept {
  if (call.desc.kind != Kind::alltoallv || call.recv != call.send) return false;
  for (std::size_t peer = 0; peer < route.outgoing.size(); ++peer) {
    if (route.outgoing[peer].at != route.incoming[peer].at) return true;
  }
  return false;
}

}  // namespace

std::size_t Flat::area_size(int /*nranks*/) noexcept { return sizeof(flat::Area); }

Flat::Flat(Regions regions, int rank, int nranks, const Failure& failure, const FlatOptions& options)
    : engine_(std::make_unique<Engine>(std::move(regions), rank, nranks, failure, options)) {}

Flat::~Flat() = default;

Status Flat::run(const FlatCall& call, std::uint64_t seq, Deadline deadline) {
  return engine_->run(call, seq, deadline);
}

Status Flat::agree(const Descriptor& desc, std::uint64_t seq, Deadline deadline) {
  return engine_->agree(desc, seq, deadline);
}

Flat::Engine::Engine(Regions regions, int rank, int nranks, const Failure& failure, const FlatOptions& options)
    : board_(std::move(regions), rank, nranks, failure, options.spare_cores),
      rank_(rank),
      nranks_(nranks),
      failure_(failure),
      options_(options),
      memory_(options.single_copy, nranks),
      inputs_(static_cast<std::size_t>(nranks)) {}

Status Flat::Engine::run(const FlatCall& call, std::uint64_t seq, Deadline deadline) {
  if (failure_.failed()) return failure_.cause();
  if (nranks_ == 1) return run_alone(call);
  const Descriptor& desc = call.desc;
  Op op{.call = call,
        .seq = seq,
        .deadline = deadline,
        .item = itemsize(desc.dtype),
        .wants = desc.kind != Kind::reduce || desc.root == rank_,
        .scales = desc.op == ReduceOp::premul_sum,
        .divisor = desc.op == ReduceOp::avg ? nranks_ : 1,
        .combine = nullptr};
  if (desc.kind == Kind::barrier) {
    return stages(
        op, 1, [](std::size_t) {}, [](std::size_t) {});
  }
  if (!reduces(desc.kind)) return move(op);
  op.combine = reduce_many_fn(desc.dtype, desc.op);
  if (op.combine == nullptr) {  // nothing to compute, but ranks that disagree hear of it first
    PYCOMM_TRY(stages(
        op, 1, [](std::size_t) {}, [](std::size_t) {}));
    return no_such_reduction(desc);
  }
  if (desc.kind == Kind::reduce_scatter || desc.kind == Kind::reduce_scatterv) return reduce_blocks(op);
  const std::size_t nbytes = static_cast<std::size_t>(desc.count) * op.item;
  if (desc.kind == Kind::allreduce && !op.scales &&
      nbytes / static_cast<std::size_t>(nranks_) >= reduce_by_reading_from()) {
    bool accepted = false;
    PYCOMM_TRY(offer(op, nbytes, call.recv != call.send, accepted));  // in place, slots cost less
    if (accepted) return allreduce_by_reading(op);
  }
  return nranks_ > 2 && nbytes >= kPartsFrom ? reduce_parts(op) : reduce_whole(op);
}

Status Flat::Engine::run_alone(const FlatCall& call) {
  const Descriptor& desc = call.desc;
  if (desc.kind == Kind::barrier || call.recv == nullptr) return {};
  if (reduces(desc.kind) && reduce_many_fn(desc.dtype, desc.op) == nullptr) return no_such_reduction(desc);
  const std::size_t count = call.counts != nullptr ? static_cast<std::size_t>(call.counts[0]) : desc.count;
  if (count == 0) return {};
  if (reduces(desc.kind) && desc.op == ReduceOp::premul_sum) {
    scale(desc.dtype, call.recv, call.send, count, desc.factor);
  } else {
    copy_bytes(call.recv, call.send, count * itemsize(desc.dtype));
  }
  return {};
}

void Flat::Engine::contribute(const Op& op, std::byte* slot, const std::byte* from, std::size_t count) const noexcept {
  if (count == 0) return;
  if (op.scales) {
    scale(op.call.desc.dtype, slot, from, count, op.call.desc.factor);
  } else {
    std::memcpy(slot, from, count * op.item);
  }
}

void Flat::Engine::combine(const Op& op, std::byte* out, std::size_t count) const noexcept {
  if (count != 0) op.combine(out, inputs_.data(), nranks_, count, op.divisor);
}

// All kinds that only move data. Each round moves one piece of every transfer: into the sender's slot, where a transfer
// to every peer has its own piece unless all get the same, and from there to the receiver's memory.
Status Flat::Engine::move(Op& op) {
  const FlatCall& call = op.call;
  flat::plan_route(call, rank_, nranks_, route_);
  const Route& route = route_;
  const auto n = static_cast<std::size_t>(nranks_);
  const auto me = static_cast<std::size_t>(rank_);
  const std::size_t lanes = route.same_to_all ? 1 : n;
  const bool is_inline = lanes * route.longest <= kInlineBytes;
  const std::size_t piece = is_inline ? std::max<std::size_t>(route.longest, 1)
                                      : std::min(round_up(route.longest, kLine), piece_of(kStageBytes, lanes));
  const std::size_t rounds = std::max<std::size_t>(div_up(route.longest, piece), 1);
  // A broadcast's slots stay: the root fills them while the others copy out of the cache, and nobody is idle.
  if (call.desc.kind != Kind::broadcast && route.longest >= options_.single_copy_from) {
    bool accepted = false;
    PYCOMM_TRY(offer(op, sent_bytes(route), !swaps(call), accepted));
    if (accepted) return move_by_reading(op);
  }

  const std::byte* send = call.send;
  std::unique_ptr<std::byte[]> saved;
  if (overwrites_itself(call, route)) {
    const std::size_t nbytes = route.outgoing.back().at + route.outgoing.back().nbytes;
    saved.reset(new (std::nothrow) std::byte[nbytes]);
    if (saved == nullptr) {
      return {Code::resource, "no memory for " + std::to_string(nbytes) +
                                  " bytes that an alltoallv in place needs when its counts are not symmetric"};
    }
    std::memcpy(saved.get(), send, nbytes);
    send = saved.get();
  }
  const auto fill = [&](std::size_t i) {
    std::byte* slot = my_payload(is_inline);
    for (std::size_t lane = 0; lane < lanes; ++lane) {
      if (!route.same_to_all && lane == me) continue;
      const Extent& out = route.outgoing[route.same_to_all ? me : lane];
      const std::size_t now = share(out.nbytes, i, piece);
      if (now != 0) std::memcpy(slot + lane * piece, send + out.at + i * piece, now);
    }
  };
  const auto drain = [&](std::size_t i) {
    for (std::size_t hop = 0; hop < n; ++hop) {  // each rank begins with itself, so that not all read from one
      const std::size_t src = me + hop < n ? me + hop : me + hop - n;
      const Extent& in = route.incoming[src];
      const std::size_t now = share(in.nbytes, i, piece);
      if (now == 0) continue;
      const std::byte* from = src == me
                                  ? send + route.outgoing[me].at + i * piece
                                  : payload(static_cast<int>(src), is_inline) + (route.same_to_all ? 0 : me * piece);
      copy_bytes(call.recv + in.at + i * piece, from, now);
    }
  };
  return stages(op, rounds, fill, drain);
}

// allreduce and reduce by exchange: every rank shows all it has, and whoever wants the result combines it alone.
Status Flat::Engine::reduce_whole(Op& op) {
  const FlatCall& call = op.call;
  const std::size_t count = call.desc.count;
  const bool is_inline = count * op.item <= kInlineBytes;
  const std::size_t step = is_inline ? std::max<std::size_t>(count, 1) : kStageBytes / op.item;
  const bool shows = op.scales || call.desc.kind == Kind::allreduce || !op.wants;

  const auto fill = [&](std::size_t i) {
    if (shows) contribute(op, my_payload(is_inline), call.send + i * step * op.item, share(count, i, step));
  };
  const auto drain = [&](std::size_t i) {
    const std::size_t at = i * step * op.item;
    if (!op.wants || count == 0) return;
    for (int peer = 0; peer < nranks_; ++peer) {
      inputs_[static_cast<std::size_t>(peer)] = peer == rank_ && !op.scales ? call.send + at : payload(peer, is_inline);
    }
    combine(op, call.recv + at, share(count, i, step));
  };
  return stages(op, std::max<std::size_t>(div_up(count, step), 1), fill, drain);
}

// allreduce and reduce in parts: the array is cut into chunks, a chunk into one part per rank. Rank r combines part r
// of every chunk and shows it in the next stage, beside its contributions to the next chunk.
//
//   stage        i                   i + 1                     slot:  [ contributions | result of my part ]
//   fill         show chunk i        show chunk i + 1
//   drain        combine part of i   combine part of i + 1, copy out the others' parts of i
Status Flat::Engine::reduce_parts(Op& op) {
  const FlatCall& call = op.call;
  const auto n = static_cast<std::size_t>(nranks_);
  const auto me = static_cast<std::size_t>(rank_);
  const std::size_t count = call.desc.count;
  const std::size_t line = kLine / op.item;
  const std::size_t longest_part = std::min(piece_of(kPartsStageBytes, n) / op.item, round_up(div_up(count, n), line));
  const std::size_t step = longest_part * n;
  const std::size_t chunks = div_up(count, step);
  const std::size_t result = step * op.item;  // where in the slot

  // Part `p` of chunk `i`: elements [begin, begin + count) of the chunk.
  struct Part {
    std::size_t begin, count;
  };
  const auto part = [&](std::size_t i, std::size_t p) {
    const std::size_t chunk = share(count, i, step);
    const std::size_t usual = round_up(div_up(chunk, n), line);
    const std::size_t begin = std::min(p * usual, chunk);
    return Part{begin, std::min(usual, chunk - begin)};
  };
  const auto fill = [&](std::size_t i) {
    if (i == chunks) return;
    const std::size_t chunk = share(count, i, step);
    const Part mine = part(i, me);
    std::byte* slot = board_.slot(rank_);
    const std::byte* from = call.send + i * step * op.item;
    if (op.scales) return contribute(op, slot, from, chunk);
    const std::size_t after = mine.begin + mine.count;
    contribute(op, slot, from, mine.begin);
    contribute(op, slot + after * op.item, from + after * op.item, chunk - after);
  };
  const auto combine_mine = [&](std::size_t i) {
    const Part mine = part(i, me);
    const std::size_t at = (i * step + mine.begin) * op.item;
    for (std::size_t peer = 0; peer < n; ++peer) {
      inputs_[peer] =
          peer == me && !op.scales ? call.send + at : board_.slot(static_cast<int>(peer)) + mine.begin * op.item;
    }
    std::byte* shown = board_.next_slot() + result;
    if (mine.count != 0) op.combine(shown, inputs_.data(), nranks_, mine.count, op.divisor);
    if (op.wants) copy_bytes(call.recv + at, shown, mine.count * op.item);
  };
  const auto collect = [&](std::size_t i) {
    for (std::size_t hop = 1; hop < n; ++hop) {
      const std::size_t peer = me + hop < n ? me + hop : me + hop - n;
      const Part theirs = part(i, peer);
      copy_bytes(call.recv + (i * step + theirs.begin) * op.item, board_.slot(static_cast<int>(peer)) + result,
                 theirs.count * op.item);
    }
  };
  const auto drain = [&](std::size_t i) {
    if (i < chunks) combine_mine(i);
    if (i > 0 && op.wants) collect(i - 1);
  };
  return stages(op, chunks + 1, fill, drain);
}

// reduce_scatter: each round shows one piece of every block and combines one piece of this rank's.
Status Flat::Engine::reduce_blocks(Op& op) {
  const FlatCall& call = op.call;
  const auto n = static_cast<std::size_t>(nranks_);
  std::size_t longest = 0;
  std::size_t mine_at = 0;
  std::size_t end = 0;
  for (int block = 0; block < nranks_; ++block) {
    if (block == rank_) mine_at = end;
    longest = std::max(longest, flat::block_count(call, block));
    end += flat::block_count(call, block);
  }
  const std::size_t mine = flat::block_count(call, rank_);
  if (nranks_ > 2 && !op.scales && longest * op.item >= reduce_by_reading_from()) {
    // In place, the result may lie where peers still read: only this rank's own block is nobody else's.
    const bool still = call.recv != call.send || mine_at == 0;
    bool accepted = false;
    PYCOMM_TRY(offer(op, end * op.item, still, accepted));
    if (accepted) {
      PYCOMM_TRY(combine_by_reading(op, mine_at, mine, call.recv));
      return leave_together(op);
    }
  }
  const bool is_inline = n * longest * op.item <= kInlineBytes;
  const std::size_t line = kLine / op.item;
  const std::size_t piece = is_inline ? std::max<std::size_t>(longest, 1)
                                      : std::min(round_up(longest, line), piece_of(kStageBytes, n) / op.item);

  const auto fill = [&](std::size_t i) {
    std::size_t at = 0;
    for (int block = 0; block < nranks_; ++block) {
      const std::size_t count = flat::block_count(call, block);
      std::byte* slot = my_payload(is_inline) + static_cast<std::size_t>(block) * piece * op.item;
      const std::size_t now = block != rank_ || op.scales ? share(count, i, piece) : 0;
      if (now != 0) contribute(op, slot, call.send + (at + i * piece) * op.item, now);
      at += count;
    }
  };
  const auto drain = [&](std::size_t i) {
    const std::size_t now = share(mine, i, piece);
    if (now == 0) return;
    for (int peer = 0; peer < nranks_; ++peer) {
      inputs_[static_cast<std::size_t>(peer)] =
          peer == rank_ && !op.scales ? call.send + (mine_at + i * piece) * op.item
                                      : payload(peer, is_inline) + static_cast<std::size_t>(rank_) * piece * op.item;
    }
    combine(op, call.recv + i * piece * op.item, now);
  };
  return stages(op, std::max<std::size_t>(div_up(longest, piece), 1), fill, drain);
}

}  // namespace pycomm
