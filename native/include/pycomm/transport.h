// The waist between what moves bytes and what decides which bytes move.
//
// A transport carries *frames*: a fixed 64-byte header and a payload. Frames from one peer arrive whole and in order per
// channel. A transport knows nothing of collectives, tags or matching: it asks the Receiver where a payload goes
// (`landing`) the moment its header is there, and tells it when the payload has landed. What nobody expects yet lands in
// memory of the receiver's own, so a channel never blocks another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "pycomm/reduce.h"
#include "pycomm/status.h"

namespace pycomm {

constexpr std::uint32_t kFrameMagic = 0x50594331;  // "PYC1"
constexpr std::size_t kMaxFramePayload = 256 * 1024;  // a longer message travels as several frames, the segments

enum class FrameType : std::uint8_t {
  schedule,  // segment of a message of a schedule
  eager,     // point-to-point message, sent without asking
  request,   // point-to-point: sender announces a long message
  grant,     // point-to-point: receiver has a buffer, send it
  data,      // point-to-point: payload that was granted
  refuse,    // point-to-point: receiver's count or dtype differs
};

// Little endian, identical on the wire and in shared memory. Lengths are checked before memory is taken.
struct FrameHeader {
  std::uint32_t magic;
  FrameType type;
  DType dtype;
  std::uint16_t channel;
  std::uint32_t group;
  std::uint32_t src;        // sender's rank in the group
  std::uint64_t seq;        // schedule: sequence number of the operation; point-to-point: the sender's message number
  std::uint64_t agreement;  // hash of the Descriptor (schedule frames)
  std::uint64_t offset;     // of this payload in its message, bytes
  std::uint64_t nbytes;     // of this payload
  std::uint64_t total;      // of the whole message, bytes
  std::int32_t tag;
  std::uint32_t reserved;
};
static_assert(sizeof(FrameHeader) == 64);

// Where a payload goes. With `reduce`, dst[i] = operand[i] (op) payload[i] over count = nbytes / itemsize elements,
// which a transport may apply piecewise on element boundaries; without it, the payload is copied to dst.
struct Landing {
  void* dst = nullptr;
  const void* operand = nullptr;
  ReduceFn reduce = nullptr;
  std::size_t itemsize = 1;
  void* cookie = nullptr;  // handed back with landed()
};

// Implemented by the mailbox. Called from the thread that drives the transport (for TCP the reactor thread); must not
// block or throw.
class Receiver {
 public:
  virtual ~Receiver() = default;
  virtual Landing landing(int peer, const FrameHeader& header) noexcept = 0;
  virtual void landed(int peer, const FrameHeader& header, const Landing& landing) noexcept = 0;
};

// Counts what is still borrowed: incremented by whoever posts, decremented (release) by the transport when a payload has
// been copied out and its memory may be reused.
using Lent = std::atomic<std::uint32_t>;

// The way to one peer of one group.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  // Queues a frame; never blocks. The header is copied; the payload is borrowed until `lent` falls. Thread-safe.
  virtual void post_send(const FrameHeader& header, const void* payload, Lent& lent) = 0;
  // Drops what is queued and not begun; memory lent for dropped frames is returned. Thread-safe.
  virtual void cancel_all() noexcept = 0;
};

// All the ways of one kind that a group has. inproc and shm make progress inside poll(); tcp progresses on the reactor
// thread and its poll() does nothing.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual const char* name() const noexcept = 0;
  virtual Endpoint& connect(int peer) = 0;
  // Moves what can be moved without waiting; true when anything moved. One thread at a time.
  virtual bool poll(Receiver& receiver) noexcept = 0;
};

}  // namespace pycomm
