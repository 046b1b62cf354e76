// The receives of one running operation, as the executor and the mailbox share them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "executor/flight.h"
#include "pycomm/plan.h"
#include "pycomm/transport.h"

namespace pycomm {

// A piece of a message that arrived before it was allowed.
struct Kept {
  std::uint64_t offset = 0;
  std::size_t nbytes = 0;
  OwnBytes data;
};

// A piece of a message of an operation that has not begun here.
struct Early {
  int peer = -1;
  FrameHeader header{};
  Kept piece;
};

// One message to receive. Its bytes arrive in order, so each count below is the length of a prefix.
struct Slot {
  int peer = -1;
  std::byte* dst = nullptr;
  const std::byte* operand = nullptr;  // set: dst = operand (op) message
  std::uint64_t total = 0;
  std::uint64_t allowed = 0;  // may land in dst
  std::uint64_t arrived = 0;  // landed, kept, or on the way
  std::uint64_t landed = 0;
  bool seen = false;      // the first frame has landed: tells an empty message that is there from one that is not
  bool grown = false;     // listed in Inbox::grown
  bool draining = false;  // the executor is landing a kept piece
  Flight* flight = nullptr;
  std::vector<Kept> kept;  // [next_kept, end)
  std::size_t next_kept = 0;

  bool has_kept() const noexcept { return next_kept < kept.size(); }
};

// What take_grown() reports.
struct Grown {
  std::uint32_t slot = 0;
  std::uint64_t landed = 0;
  bool seen = false;
  bool has_kept = false;
};

// Reused from run to run. Open inboxes belong to the mailbox's lock; closed ones to the executor.
struct Inbox {
  const BoundPlan* plan = nullptr;
  std::uint64_t seq = 0;
  std::uint64_t agreement = 0;
  ReduceFn reduce = nullptr;
  std::size_t itemsize = 1;
  std::vector<Slot> slots;
  std::vector<std::uint32_t> grown;
  std::atomic<bool> any_grown{false};
  std::atomic<bool> stopped{false};  // poisoned, or a disagreement was found: see Mailbox::verdict
  int disagreeing_peer = -1;
  std::uint64_t their_agreement = 0;
};

}  // namespace pycomm
