// Ranks as threads over heap regions, each with the whole stack from mailbox to executor: shared by the executor's
// tests.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "pycomm/executor.h"
#include "pycomm/mailbox.h"
#include "pycomm/point_to_point.h"
#include "pycomm/region.h"
#include "transport/inproc/inproc.h"
#include "transport/shm/shm.h"

namespace pycomm::testing {

// Ranks outnumber cores in most tests: do not spin.
constexpr Patience kPatience{0, 20};
// No test waits longer than this; one that gets here has failed.
constexpr double kBoundSeconds = 60;
// Large sizes are cut under ThreadSanitizer, which is some thirty times slower; they still span many segments.
#if defined(__SANITIZE_THREAD__)
constexpr int kShrink = 16;
#else
constexpr int kShrink = 1;
#endif

// Remembers what the mailbox said; fails the group when it is broken, as the group does.
class Listener final : public MailboxListener {
 public:
  Listener(Failure& failure, Doorbell& bell) : failure_(failure), bell_(bell) {}
  void on_disagreement(int peer, std::uint64_t seq, std::uint64_t ours, std::uint64_t theirs) noexcept override {
    ++disagreements;
    if (tell) tell(peer, seq, ours, theirs);
  }
  void on_broken(const Status& cause) noexcept override {
    failure_.set(cause);
    bell_.ring();
  }
  std::atomic<int> disagreements{0};
  std::function<void(int, std::uint64_t, std::uint64_t, std::uint64_t)> tell;

 private:
  Failure& failure_;
  Doorbell& bell_;
};

// Everything one rank has.
class RankStack {
 public:
  RankStack(const Regions& regions, int rank, std::size_t limit)
      : bell(regions.header(rank).bell),
        listener(failure, bell),
        mailbox(MailboxConfig{rank, static_cast<int>(regions.base.size()), 7, limit}, bell, listener),
        transport(make_shm_transport(regions, sizeof(RegionHeader), rank, "inproc")),
        progress(mailbox, by_peer(regions, rank)),
        env{mailbox, progress, failure, kPatience},
        executor(env),
        p2p(env) {}

  void fail(const Status& cause) {
    failure.set(cause);
    bell.ring();
  }

  Doorbell& bell;
  Failure failure;
  Listener listener;
  Mailbox mailbox;
  std::unique_ptr<Transport> transport;
  Progress progress;
  ExecutorEnv env;
  Executor executor;
  PointToPoint p2p;

 private:
  std::vector<Transport*> by_peer(const Regions& regions, int rank) {
    std::vector<Transport*> all(regions.base.size(), transport.get());
    all[static_cast<std::size_t>(rank)] = nullptr;
    return all;
  }
};

class World {
 public:
  explicit World(int nranks, std::size_t limit = std::size_t{1} << 30)
      : memory_(nranks, sizeof(RegionHeader) + shm_area_size(nranks)) {
    for (int rank = 0; rank < nranks; ++rank)
      ranks_.push_back(std::make_unique<RankStack>(memory_.regions(), rank, limit));
  }
  RankStack& operator[](int rank) { return *ranks_[static_cast<std::size_t>(rank)]; }
  int size() const { return static_cast<int>(ranks_.size()); }
  // Calls body(rank, stack) on a thread per rank and joins them.
  void run(const std::function<void(int, RankStack&)>& body) {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size(); ++rank) threads.emplace_back([&, rank] { body(rank, (*this)[rank]); });
    for (std::thread& thread : threads) thread.join();
  }

 private:
  HeapRegions memory_;
  std::vector<std::unique_ptr<RankStack>> ranks_;
};

}  // namespace pycomm::testing
