// The waist between what moves bytes and what decides which bytes move.
//
// A transport carries *frames*: a fixed 64-byte header and a payload. Frames from one peer arrive in order per channel;
// a transport may hand a frame on as several smaller ones, one right after the other, with offset and nbytes to match.
// A transport knows nothing of collectives, tags or matching: it asks the Receiver where a payload goes (`landing`) the
// moment its header is there, and tells it when the payload has landed. What nobody expects yet lands in memory of the
// receiver's own, so a channel never blocks another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "pycomm/reduce.h"
#include "pycomm/status.h"

namespace pycomm {

constexpr std::uint32_t kFrameMagic = 0x50594331;                  // "PYC1"
constexpr std::size_t kMaxFramePayload = std::size_t{256} * 1024;  // a longer message travels as several frames
// Point-to-point frames use these channels: envelopes (eager, request, grant, refuse) must not overtake one another,
// and long data must not delay them. Schedules use the channels below.
constexpr std::uint16_t kEnvelopeChannel = 0xFFFF;
constexpr std::uint16_t kDataChannel = 0xFFFE;

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
  std::int32_t tag;         // point-to-point: the tag; schedule: number of the message on its channel, from 0
  std::uint32_t reserved;
};
static_assert(sizeof(FrameHeader) == 64);

// Where a payload goes. With `reduce`, dst[i] = operand[i] (op) payload[i] over count = nbytes / itemsize elements,
// which a transport may apply piecewise on element boundaries; without it, the payload is copied to dst. A null dst
// means that nobody wants the payload: it is read and forgotten.
struct Landing {
  void* dst = nullptr;
  const void* operand = nullptr;
  ReduceFn reduce = nullptr;
  std::size_t itemsize = 1;
  void* cookie = nullptr;  // handed back with landed()
};

// Implemented by the mailbox. Called from the thread that drives the transport (for TCP the reactor thread); does not
// block or throw. Between landing() and landed() the transport may write to dst at any moment, so it must get there
// without waiting for anything. One that runs out of bytes half-way (an empty socket) calls parked(), and resumed()
// before it touches dst again: false means that the memory was taken back, and the rest is read and forgotten (landed()
// is called all the same). A connection that ends half-way leaves its landing parked for ever.
class Receiver {
 public:
  virtual ~Receiver() = default;
  virtual Landing landing(int peer, const FrameHeader& header) noexcept = 0;
  virtual void landed(int peer, const FrameHeader& header, const Landing& landing) noexcept = 0;
  virtual void parked(int peer, const FrameHeader& header, const Landing& landing) noexcept = 0;
  virtual bool resumed(int peer, const FrameHeader& header, const Landing& landing) noexcept = 0;
  // Some Lent fell outside of post_send() and poll(), on a thread of the transport's own: a sleeping sender must look.
  virtual void returned() noexcept = 0;
};

// Counts what is still borrowed: incremented by whoever posts, once per frame, decremented (release) by the transport
// when the payload has been copied out and its memory may be reused. Frames without payload count too.
using Lent = std::atomic<std::uint32_t>;

// The way to one peer of one group.
class Endpoint {
 public:
  virtual ~Endpoint() = default;
  // Queues a frame; never blocks. The header is copied; the payload is borrowed until `lent` falls. Thread-safe.
  virtual void post_send(const FrameHeader& header, const void* payload, Lent& lent) = 0;
  // Drops the queued frames whose header has this type and seq. A frame that is half on its way is finished from a copy
  // of what is left, so on return nothing of theirs is borrowed any more. Thread-safe, does not wait for the peer.
  virtual void cancel(FrameType type, std::uint64_t seq) noexcept = 0;
  // The same for every frame. Thread-safe.
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
