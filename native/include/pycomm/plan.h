// One rank's program of a schedule, bound to byte counts: what the executor runs. Binding works out, once, which
// segments must wait for which others, so that a run only counts down.
//
// A *step* is one op of the program. It is cut into *segments* of at most `segment_nbytes`, the nodes of a graph. An
// edge u -> v says that v touches memory which u, earlier in the program, reads or writes, one of them writing.
// Whatever is not so connected may overlap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pycomm/status.h"
#include "pycomm/transport.h"
#include "pycomm/types.h"

namespace pycomm {

// Numbers of pycomm/schedule/ir.py.
enum class OpKind : std::uint8_t { copy, send, recv, reduce, recv_reduce };
enum class Space : std::uint8_t { input, output, scratch };
constexpr std::size_t kPlanColumns = 8;

// What binding needs; arrays are read during bind() only.
struct PlanSpec {
  Kind kind = Kind::allreduce;
  int rank = 0;
  int nranks = 1;
  int root = -1;
  int pieces = 1;                     // chunks per block
  bool in_place = false;              // INPUT and OUTPUT are one buffer
  std::size_t itemsize = 1;           // of the dtype; a bound plan serves every dtype of this size
  std::span<const std::int32_t> ops;  // rows of kind, peer, channel, src space, src start, dst space, dst start, count
  // Per space: element offset of each chunk boundary (number of chunks + 1 values; empty where the rank has no chunks).
  std::array<std::span<const std::int64_t>, 3> boundaries;
  std::size_t segment_nbytes = kMaxFramePayload;  // rounded down to whole elements
};

struct Place {
  Space space = Space::input;
  std::uint64_t offset = 0;  // bytes
};

struct Step {
  OpKind kind = OpKind::copy;
  int peer = -1;
  std::uint16_t channel = 0;
  std::int32_t message = 0;  // this is the message-th on its lane (peer, channel, direction)
  std::uint32_t slot = 0;    // which of the rank's receives, or of its sends, this is
  Place src;                 // also the operand of recv_reduce
  Place dst;
  std::uint64_t nbytes = 0;
  std::uint32_t first_node = 0;
  std::uint32_t nodes = 0;  // at least one, also for a message of no bytes
};

// Where the messages of one incoming lane are among the rank's receives.
struct LaneSlots {
  std::uint32_t first = 0;  // in `slot_order`
  std::uint32_t count = 0;
};

// Immutable after bind(); any number of threads may read it.
struct BoundPlan {
  // Fails with Code::usage when a row or an offset makes no sense; says which.
  static Result<BoundPlan> bind(const PlanSpec& spec);

  int rank = 0;
  int nranks = 1;
  bool in_place = false;
  std::size_t itemsize = 1;
  std::uint64_t segment_nbytes = kMaxFramePayload;
  std::uint32_t channels = 0;
  std::array<std::uint64_t, 3> space_nbytes{};
  Place result;  // where this rank's result lies when the program has ended
  std::uint64_t result_nbytes = 0;

  std::vector<Step> steps;
  std::vector<std::uint32_t> receives;    // slot -> step
  std::vector<std::uint32_t> sends;       // slot -> step
  std::vector<LaneSlots> incoming;        // [peer * channels + channel]
  std::vector<std::uint32_t> slot_order;  // the receives of each incoming lane, in program order
  std::vector<std::uint32_t> node_step;   // node -> step
  std::vector<std::uint32_t> waits_for;   // node -> number of nodes that must be done before
  std::vector<std::uint32_t> first_next;  // node -> start of its successors in `next`; one value more at the end
  std::vector<std::uint32_t> next;

  std::size_t nodes() const noexcept { return node_step.size(); }
  // Bytes [begin, end) of its step that a node covers.
  std::uint64_t node_begin(std::uint32_t node) const noexcept {
    return (node - steps[node_step[node]].first_node) * segment_nbytes;
  }
  std::uint64_t node_end(std::uint32_t node) const noexcept {
    const std::uint64_t end = node_begin(node) + segment_nbytes;
    const std::uint64_t nbytes = steps[node_step[node]].nbytes;
    return end < nbytes ? end : nbytes;
  }
};

}  // namespace pycomm
