// The collective lane: operations of one group, one at a time, in the order in which they were launched.
//
// An operation runs on the caller's thread when the lane is idle and the call blocks, else on a worker thread that
// starts when first needed. The right to run is a token: `pending_` counts the operations that hold it or wait for it,
// whoever raises it from zero has the token, and whoever finishes with others pending hands it to the worker.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

// An operation under way. Thread-safe. Waiters sleep on the group's doorbell, which is rung when the operation ends.
class Work {
 public:
  explicit Work(std::function<Status()> body) : body_(std::move(body)) {}
  bool done() const noexcept { return done_.load(std::memory_order_acquire); }
  // Meaningful once done. `source` is the rank a message came from, -1 for collectives.
  const Status& status() const noexcept { return status_; }
  int source() const noexcept { return source_; }

  void finish(Status status, int source = -1) {
    status_ = std::move(status);
    source_ = source;
    body_ = nullptr;
    done_.store(true, std::memory_order_release);
  }
  Status run_body() { return body_(); }

 private:
  std::function<Status()> body_;
  Status status_;
  int source_ = -1;
  std::atomic<bool> done_{false};
};

class Lane {
 public:
  explicit Lane(Doorbell& bell) : bell_(bell) {}
  ~Lane() { stop(); }
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Takes the token when the lane is idle. The caller then runs its operation and calls leave().
  bool try_enter() noexcept {
    std::uint32_t idle = 0;
    return pending_.compare_exchange_strong(idle, 1, std::memory_order_acquire, std::memory_order_relaxed);
  }
  void leave() noexcept {
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) != 1) grant();
  }

  // Queues an operation for the worker. It is queued and counted at once: else another could be run out of turn.
  void push(std::shared_ptr<Work> work) {
    {
      const std::lock_guard lock(mutex_);
      if (!worker_.joinable()) worker_ = std::thread([this] { serve(); });
      queue_.push_back(std::move(work));
      if (pending_.fetch_add(1, std::memory_order_acq_rel) == 0) granted_ = true;
    }
    wake_.notify_one();
  }

  // Waits until nothing is queued or running, the deadline has passed or the group has failed.
  void drain(Deadline deadline, const Failure& failure) noexcept {
    static_cast<void>(wait_until([this] { return pending_.load(std::memory_order_acquire) == 0; }, bell_, failure,
                                 deadline, Patience{0, 1}));
  }

  // Ends the worker once the queue is empty. The group must have failed or drained before.
  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    if (worker_.joinable()) worker_.join();
  }

 private:
  void grant() noexcept {
    {
      const std::lock_guard lock(mutex_);
      granted_ = true;
    }
    wake_.notify_one();
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      wake_.wait(lock, [this] { return (granted_ && !queue_.empty()) || (stopping_ && queue_.empty()); });
      if (queue_.empty()) return;
      granted_ = false;
      const std::shared_ptr<Work> work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work->finish(work->run_body());
      const bool more = pending_.fetch_sub(1, std::memory_order_acq_rel) != 1;
      bell_.ring_always();
      lock.lock();
      if (more) granted_ = true;
    }
  }

  Doorbell& bell_;
  std::atomic<std::uint32_t> pending_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Work>> queue_;
  bool granted_ = false;
  bool stopping_ = false;
  std::thread worker_;
};

}  // namespace pycomm
