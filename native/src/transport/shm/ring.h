// A byte ring between one producer and one consumer, possibly in different processes. All-zero is the empty ring.
//
//   | Ring: tail | head | starving | data: capacity bytes ...                          |
//              head ........ frames not yet consumed ........ tail   (both only grow; place = counter mod capacity)
//
// A frame is its 64-byte header and its payload, padded to 64 bytes. Headers never wrap, since everything is a multiple
// of 64; a payload may, and is then two pieces that meet at a multiple of 64 bytes of the payload, hence between
// elements.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "pycomm/transport.h"

namespace pycomm {

struct Ring {
  alignas(64) std::atomic<std::uint64_t> tail;      // written by the producer
  alignas(64) std::atomic<std::uint64_t> head;      // written by the consumer
  alignas(64) std::atomic<std::uint32_t> starving;  // the producer waits for room
};
static_assert(sizeof(Ring) == 192 && std::atomic<std::uint64_t>::is_always_lock_free);

constexpr std::size_t kFrameAlign = 64;
constexpr std::size_t padded(std::size_t nbytes) noexcept { return (nbytes + kFrameAlign - 1) & ~(kFrameAlign - 1); }

// One side's view of a ring: where it is, and this side's copy of the counters, so that the other side's line is read
// only when needed.
class RingView {
 public:
  RingView(std::byte* memory, std::size_t capacity) noexcept
      : ring_(reinterpret_cast<Ring*>(memory)), data_(memory + sizeof(Ring)), capacity_(capacity) {}

  // Largest payload that goes in as one piece: two frames fit at the same time, one filling while one drains.
  std::size_t piece_limit() const noexcept {
    return std::min(kMaxFramePayload, (capacity_ / 2 - sizeof(FrameHeader)) & ~(kFrameAlign - 1));
  }

  // Producer. False when there is no room now.
  bool push(const FrameHeader& header, const std::byte* payload) noexcept {
    const std::size_t need = sizeof(FrameHeader) + padded(header.nbytes);
    const std::uint64_t tail = ring_->tail.load(std::memory_order_relaxed);
    if (capacity_ - (tail - other_) < need) {
      other_ = ring_->head.load(std::memory_order_acquire);
      if (tail - other_ > capacity_ || capacity_ - (tail - other_) < need) return false;
    }
    std::memcpy(at(tail), &header, sizeof(FrameHeader));
    if (header.nbytes != 0) {
      std::byte* const first = at(tail + sizeof(FrameHeader));
      const std::size_t run = std::min<std::size_t>(header.nbytes, static_cast<std::size_t>(end() - first));
      std::memcpy(first, payload, run);
      if (run < header.nbytes) std::memcpy(data_, payload + run, header.nbytes - run);
    }
    ring_->tail.store(tail + need, std::memory_order_release);
    return true;
  }
  // Producer: says that it waits for room. Try again afterwards: room made before the consumer saw this rings no bell.
  void starve() noexcept {
    ring_->starving.store(1, std::memory_order_seq_cst);
    other_ = ring_->head.load(std::memory_order_seq_cst);
  }

  // Consumer. Null when empty; stays valid until pop().
  const std::byte* front() noexcept {
    const std::uint64_t head = ring_->head.load(std::memory_order_relaxed);
    if (head == other_) {
      other_ = ring_->tail.load(std::memory_order_acquire);
      if (head == other_) return nullptr;
    }
    return at(head);
  }
  // Consumer: whether a frame of this size can be there at all.
  bool holds(std::uint64_t nbytes) const noexcept {
    const std::uint64_t there = other_ - ring_->head.load(std::memory_order_relaxed);
    return there <= capacity_ && nbytes <= kMaxFramePayload && sizeof(FrameHeader) + padded(nbytes) <= there;
  }
  // Consumer: calls use(begin, offset, nbytes) for the one or two pieces of the payload of the front frame.
  template <typename Use>
  void payload(std::size_t nbytes, Use&& use) const noexcept {
    const std::byte* const first = at(ring_->head.load(std::memory_order_relaxed) + sizeof(FrameHeader));
    const std::size_t run = std::min(nbytes, static_cast<std::size_t>(end() - first));
    use(first, std::size_t{0}, run);
    if (run < nbytes) use(static_cast<const std::byte*>(data_), run, nbytes - run);
  }
  // Consumer. True when the producer waits for the room.
  bool pop(std::size_t nbytes) noexcept {
    const std::uint64_t head = ring_->head.load(std::memory_order_relaxed);
    ring_->head.store(head + sizeof(FrameHeader) + padded(nbytes), std::memory_order_seq_cst);
    return ring_->starving.load(std::memory_order_seq_cst) != 0 &&
           ring_->starving.exchange(0, std::memory_order_seq_cst) != 0;
  }

 private:
  std::byte* at(std::uint64_t counter) const noexcept { return data_ + (counter & (capacity_ - 1)); }
  std::byte* end() const noexcept { return data_ + capacity_; }

  Ring* ring_;
  std::byte* data_;
  std::size_t capacity_;     // power of two
  std::uint64_t other_ = 0;  // the other side's counter as last seen
};

}  // namespace pycomm
