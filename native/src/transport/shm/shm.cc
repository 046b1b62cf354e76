#include "transport/shm/shm.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "transport/shm/ring.h"

namespace pycomm {
namespace {

constexpr std::size_t kLargestRing = std::size_t{1} << 20;
constexpr std::size_t kSmallestRing = std::size_t{1} << 16;
// Rings of one region together: memory files are reserved when they are made, so the sum must not grow with the group
// until the rings are as small as is useful.
constexpr std::size_t kAllRings = std::size_t{8} << 20;
// Frames taken from one source before the next one is looked at.
constexpr int kTurn = 4;

std::size_t ring_capacity(int nranks) noexcept {
  const std::size_t share = std::bit_floor(kAllRings / static_cast<std::size_t>(std::max(nranks, 1)));
  return std::clamp(share, kSmallestRing, kLargestRing);
}

// Applies a landing to one piece of a payload that begins `offset` bytes into it.
void land(const Landing& landing, const std::byte* piece, std::size_t offset, std::size_t nbytes) noexcept {
  if (landing.dst == nullptr || nbytes == 0) return;
  std::byte* const dst = static_cast<std::byte*>(landing.dst) + offset;
  if (landing.reduce == nullptr) {
    std::memcpy(dst, piece, nbytes);
  } else {
    landing.reduce(dst, static_cast<const std::byte*>(landing.operand) + offset, piece, nbytes / landing.itemsize);
  }
}

// A frame that did not fit into the ring, or what is left of it.
struct Queued {
  FrameHeader header;
  const std::byte* payload;
  Lent* lent;                        // null once the memory is returned
  std::unique_ptr<std::byte[]> own;  // the payload, when its owner wanted the memory back
  bool begun;
};

class ShmEndpoint final : public Endpoint {
 public:
  ShmEndpoint(RingView ring, Doorbell& bell) noexcept : ring_(ring), bell_(bell) {}

  void post_send(const FrameHeader& header, const void* payload, Lent& lent) override {
    const std::lock_guard lock(mutex_);
    Queued frame{header, static_cast<const std::byte*>(payload), &lent, nullptr, false};
    if (!queue_.empty()) {
      queue_.push_back(std::move(frame));
      return;
    }
    const bool all = push(frame);
    if (all || frame.begun) bell_.ring();
    if (all) return;
    queue_.push_back(std::move(frame));
    waiting_.store(true, std::memory_order_relaxed);
    flush_locked();
  }

  void cancel(FrameType type, std::uint64_t seq) noexcept override {
    cancel_if([&](const FrameHeader& header) { return header.type == type && header.seq == seq; });
  }
  void cancel_all() noexcept override {
    cancel_if([](const FrameHeader&) { return true; });
  }

  // Pushes what was queued; true when anything moved.
  bool flush() noexcept {
    if (!waiting_.load(std::memory_order_relaxed)) return false;
    const std::lock_guard lock(mutex_);
    return flush_locked();
  }

 private:
  // Pushes pieces of the frame until it is through (true: its memory is returned) or the ring is full.
  bool push(Queued& frame) noexcept {
    for (;;) {
      FrameHeader piece = frame.header;
      piece.nbytes = std::min<std::uint64_t>(frame.header.nbytes, ring_.piece_limit());
      if (!ring_.push(piece, frame.payload)) return false;
      frame.begun = true;
      frame.header.offset += piece.nbytes;
      frame.header.nbytes -= piece.nbytes;
      frame.payload += piece.nbytes;
      if (frame.header.nbytes == 0) break;
    }
    if (frame.lent != nullptr) frame.lent->fetch_sub(1, std::memory_order_release);
    return true;
  }

  bool flush_locked() noexcept {
    bool moved = false;
    bool announced = false;
    while (!queue_.empty()) {
      Queued& frame = queue_.front();
      const std::uint64_t before = frame.header.nbytes;
      const bool all = push(frame);
      moved |= all || frame.header.nbytes != before;
      if (all) {
        announced = false;
        queue_.pop_front();
      } else {
        // Announce the wait, then look once more: the consumer rings only when it sees the announcement.
        if (std::exchange(announced, true)) break;
        ring_.starve();
      }
    }
    if (queue_.empty()) waiting_.store(false, std::memory_order_relaxed);
    if (moved) bell_.ring();
    return moved;
  }

  template <typename Matches>
  void cancel_if(Matches&& matches) noexcept {
    const std::lock_guard lock(mutex_);
    for (Queued& frame : queue_) {
      if (frame.lent == nullptr || !matches(frame.header)) continue;
      if (frame.begun) {
        frame.own = std::make_unique_for_overwrite<std::byte[]>(frame.header.nbytes);
        std::memcpy(frame.own.get(), frame.payload, frame.header.nbytes);
        frame.payload = frame.own.get();
      } else {
        frame.payload = nullptr;
      }
      std::exchange(frame.lent, nullptr)->fetch_sub(1, std::memory_order_release);
    }
    std::erase_if(queue_, [](const Queued& frame) { return frame.lent == nullptr && frame.own == nullptr; });
    if (queue_.empty()) waiting_.store(false, std::memory_order_relaxed);
  }

  RingView ring_;
  Doorbell& bell_;  // of the destination
  std::mutex mutex_;
  std::deque<Queued> queue_;
  std::atomic<bool> waiting_{false};  // the queue is not empty
};

// One ring that leads here.
struct Inlet {
  int source;
  RingView ring;
  Doorbell* bell;  // of the source
  bool broken;     // what it holds is not frames: never read again
};

class ShmTransport final : public Transport {
 public:
  ShmTransport(const Regions& regions, std::size_t offset, int rank, const char* name) : name_(name) {
    const int nranks = static_cast<int>(regions.base.size());
    const std::size_t capacity = ring_capacity(nranks);
    const auto ring = [&](int source, int destination) {
      std::byte* const rings = regions.base[static_cast<std::size_t>(destination)] + offset;
      return RingView(rings + static_cast<std::size_t>(source) * (sizeof(Ring) + capacity), capacity);
    };
    endpoints_.resize(regions.base.size());
    for (int peer = 0; peer < nranks; ++peer) {
      if (peer == rank || regions.base[static_cast<std::size_t>(peer)] == nullptr) continue;
      Doorbell& bell = regions.header(peer).bell;
      endpoints_[static_cast<std::size_t>(peer)] = std::make_unique<ShmEndpoint>(ring(rank, peer), bell);
      inlets_.push_back({peer, ring(peer, rank), &bell, false});
    }
  }

  const char* name() const noexcept override { return name_; }
  Endpoint& connect(int peer) override { return *endpoints_.at(static_cast<std::size_t>(peer)); }

  bool poll(Receiver& receiver) noexcept override {
    bool moved = false;
    for (Inlet& inlet : inlets_) moved |= drain(inlet, receiver);
    for (const auto& endpoint : endpoints_)
      if (endpoint) moved |= endpoint->flush();
    return moved;
  }

 private:
  static bool drain(Inlet& inlet, Receiver& receiver) noexcept {
    if (inlet.broken) return false;
    bool wake = false;
    int frames = 0;
    for (; frames < kTurn; ++frames) {
      const std::byte* const front = inlet.ring.front();
      if (front == nullptr) break;
      FrameHeader header;  // a copy: what is checked is what is used, whatever the other process writes meanwhile
      std::memcpy(&header, front, sizeof header);
      if (header.magic != kFrameMagic || !inlet.ring.holds(header.nbytes)) {
        inlet.broken = true;
        header.magic = 0;  // no frame: the receiver tells the group
        (void)receiver.landing(inlet.source, header);
        break;
      }
      const Landing landing = receiver.landing(inlet.source, header);
      inlet.ring.payload(header.nbytes, [&](const std::byte* piece, std::size_t offset, std::size_t nbytes) {
        land(landing, piece, offset, nbytes);
      });
      wake |= inlet.ring.pop(header.nbytes);
      receiver.landed(inlet.source, header, landing);
    }
    if (wake) inlet.bell->ring();
    return frames != 0;
  }

  const char* name_;
  std::vector<std::unique_ptr<ShmEndpoint>> endpoints_;  // by peer
  std::vector<Inlet> inlets_;
};

}  // namespace

std::size_t shm_area_size(int nranks) noexcept {
  return static_cast<std::size_t>(nranks) * (sizeof(Ring) + ring_capacity(nranks));
}

std::unique_ptr<Transport> make_shm_transport(const Regions& regions, std::size_t offset, int rank, const char* name) {
  return std::make_unique<ShmTransport>(regions, offset, rank, name);
}

}  // namespace pycomm
