// A payload on its way into memory: from landing() to landed(). The cookie of a Landing is a Flight, so it stays valid
// however long a transport takes, also when what it was meant for is gone by then.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

#include "pycomm/mailbox.h"

namespace pycomm {

// Memory for payloads that nobody expects yet, uninitialised. Null when there is none.
using OwnBytes = std::unique_ptr<std::byte[]>;
inline OwnBytes own_bytes(std::size_t nbytes) noexcept { return OwnBytes(new (std::nothrow) std::byte[nbytes]); }

struct Flight {
  void* target = nullptr;  // what the payload lands in; null when it was taken back, or while it is kept
  OwnBytes kept;           // the payload's own memory, when it lands early
  std::size_t kept_nbytes = 0;
  bool parked = false;  // the transport does not touch the memory until resumed()
};

// Flights of one owner, under its lock. Addresses stay put; memory grows to the largest number at once.
class FlightPool {
 public:
  Flight& take() {
    if (free_.empty()) {
      all_.push_back(std::make_unique<Flight>());
      free_.reserve(all_.size());
      return *all_.back();
    }
    Flight* const flight = free_.back();
    free_.pop_back();
    return *flight;
  }
  void give_back(Flight& flight) noexcept {
    flight = Flight{};
    free_.push_back(&flight);
  }

 private:
  std::vector<std::unique_ptr<Flight>> all_;
  std::vector<Flight*> free_;
};

// Takes memory back from the flight that uses it, if any: waits (without the lock) while the transport is writing,
// which is never long. `flight` is the target's pointer to it; null afterwards.
template <typename Lock>
void recall(Flight*& flight, Lock& lock) {
  while (flight != nullptr && !flight->parked) {
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  if (flight != nullptr) flight->target = nullptr;
  flight = nullptr;
}

}  // namespace pycomm
