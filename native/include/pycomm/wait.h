// Waiting: how a thread of the core waits for memory that another thread or process will change.
//
// Every wait has a deadline, ends when the group has failed, and is cheap: it spins briefly, then yields, then sleeps
// in the kernel on the waiter's own doorbell. Whoever changes something that a rank may be waiting for rings that
// rank's doorbell; ringing costs one load unless somebody sleeps.
#pragma once

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstdint>
#include <mutex>

#include "pycomm/status.h"

namespace pycomm {

// Monotonic time in nanoseconds.
inline std::int64_t now_ns() noexcept {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

// A point on the monotonic clock, in nanoseconds.
struct Deadline {
  std::int64_t at_ns = INT64_MAX;
  static Deadline after(double seconds) noexcept {
    return seconds >= 9e9 ? Deadline{} : Deadline{now_ns() + static_cast<std::int64_t>(seconds * 1e9)};
  }
  bool passed() const noexcept { return at_ns != INT64_MAX && now_ns() >= at_ns; }
};

// Why a group is dead. Set once, the first cause wins; read by every wait of the group. Thread-safe.
class Failure {
 public:
  bool failed() const noexcept { return flag_.load(std::memory_order_relaxed); }
  // True when this call was the first. Callers then ring every local waiter.
  bool set(Status cause) {
    const std::lock_guard lock(mutex_);
    if (flag_.load(std::memory_order_relaxed)) return false;
    cause_ = std::move(cause);
    flag_.store(true, std::memory_order_release);
    return true;
  }
  Status cause() const {
    const std::lock_guard lock(mutex_);
    return cause_;
  }

 private:
  std::atomic<bool> flag_{false};
  mutable std::mutex mutex_;
  Status cause_;
};

inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Orders everything before it before everything after it. ThreadSanitizer does not know fences, but an atomic
// read-modify-write is one on all the machines it runs on.
inline void full_fence() noexcept {
#if defined(__SANITIZE_THREAD__)
  static std::atomic<int> touched{0};
  touched.fetch_add(1, std::memory_order_seq_cst);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// One per rank and group, in memory that every process able to wake the rank has mapped. All-zero is a valid doorbell.
struct alignas(64) Doorbell {
  std::atomic<std::uint32_t> word;
  std::atomic<std::uint32_t> sleepers;

  // Call after the change is visible. The fence orders the change before the look at `sleepers`; the sleeper does the
  // reverse, so one of the two always sees the other.
  void ring() noexcept {
    full_fence();
    ring_after_fence();
  }
  // The same for many doorbells after one change: the caller has issued the fence.
  void ring_after_fence() noexcept {
    if (sleepers.load(std::memory_order_relaxed) != 0) ring_always();
  }
  void ring_always() noexcept {
    word.fetch_add(1, std::memory_order_seq_cst);
    syscall(SYS_futex, &word, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
};

// How a wait ended.
enum class Waited : std::uint8_t { ready, deadline, failed };

// Called by a sleeping thread after every nap (at least ten times a second), so that the owner of the thread can look
// at what the core knows nothing of: Python looks at pending signals here. It may set the group's Failure, which
// ends the wait.
struct SleepHook {
  void (*call)(void* arg) noexcept = nullptr;
  void* arg = nullptr;
};
inline thread_local SleepHook sleep_hook;

struct Patience {
  int spins = 2000;  // polls with a pause before the first yield (0 when ranks outnumber cores)
  int yields = 200;  // polls with sched_yield before sleeping
};

// Waits until `ready()` holds. `ready` must be cheap and may make progress of its own; it runs on this thread only.
// Sleeps are cut to 100 ms so that a wake-up lost with a killed process delays, and never hangs, a waiter.
template <typename Ready>
Waited wait_until(Ready&& ready, Doorbell& bell, const Failure& failure, Deadline deadline, Patience patience) {
  for (int i = 0; i < patience.spins; ++i) {
    if (ready()) return Waited::ready;
    if (failure.failed()) return Waited::failed;
    cpu_relax();
  }
  // A yield that took long ran somebody who has better things to do than what this thread waits for, and the scheduler
  // counts it as a turn taken; who sleeps instead is favoured on waking.
  constexpr std::int64_t kLongYieldNs = 100'000;
  std::int64_t before = patience.yields > 0 ? now_ns() : 0;
  for (int i = 0; i < patience.yields; ++i) {
    if (ready()) return Waited::ready;
    if (failure.failed()) return Waited::failed;
    sched_yield();
    const std::int64_t after = now_ns();
    if (after - before > kLongYieldNs) break;
    before = after;
  }
  for (;;) {
    const std::uint32_t seen = bell.word.load(std::memory_order_acquire);
    bell.sleepers.fetch_add(1, std::memory_order_seq_cst);
    full_fence();
    const bool done = ready();
    if (!done && !failure.failed()) {
      const std::int64_t left = deadline.at_ns == INT64_MAX ? INT64_MAX : deadline.at_ns - now_ns();
      if (left > 0) {
        const std::int64_t nap = left < 100'000'000 ? left : 100'000'000;
        const timespec t{nap / 1'000'000'000, nap % 1'000'000'000};
        syscall(SYS_futex, &bell.word, FUTEX_WAIT, seen, &t, nullptr, 0);
      }
    }
    bell.sleepers.fetch_sub(1, std::memory_order_relaxed);
    if (sleep_hook.call != nullptr) sleep_hook.call(sleep_hook.arg);
    if (done || ready()) return Waited::ready;
    if (failure.failed()) return Waited::failed;
    if (deadline.passed()) return Waited::deadline;
  }
}

}  // namespace pycomm
