// One thread that serves descriptors, timers and posted tasks. Everything it runs must not block and must not throw.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "pycomm/status.h"

namespace pycomm {

class Reactor {
 public:
  // Hears of events on one descriptor, on the reactor thread.
  class Handler {
   public:
    virtual ~Handler() = default;
    virtual void on_ready(std::uint32_t events) noexcept = 0;  // EPOLL* bits
  };
  using Task = std::function<void()>;
  using Token = std::uint64_t;  // names one watch; never reused
  using TimerId = std::pair<std::int64_t, std::uint64_t>;

  // `name` is that of the thread (at most 15 characters). All signals are blocked in it.
  static Result<std::unique_ptr<Reactor>> start(const char* name);
  // Stops; must not run on the reactor thread itself.
  ~Reactor();
  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;

  // Any thread. Runs `task` on the reactor thread, in the order of posting. False, and nothing runs, once stopped.
  bool post(Task task);
  // Any thread; blocks until `task` has run. Once the reactor has stopped, the task runs on the caller's thread. In a
  // forked child nothing runs.
  void call(const Task& task);
  // Runs what was posted before, ends the thread, drops all handlers. Any thread but the reactor's; twice is fine.
  void stop();
  // True in a child that was forked after start(): the thread is not there, nothing may be waited for.
  bool forked() const noexcept;
  bool here() const noexcept { return std::this_thread::get_id() == thread_.get_id(); }

  // Reactor thread only. The handler is kept alive until forget(); the descriptor stays the caller's. 0 on failure.
  Token watch(int fd, std::uint32_t events, std::shared_ptr<Handler> handler);
  void forget(int fd);
  // Changes the events of a watch. Any thread, as long as the descriptor cannot be closed meanwhile.
  void rearm(int fd, Token token, std::uint32_t events) noexcept;
  // Reactor thread only.
  TimerId after(double seconds, Task task);
  void cancel(TimerId timer) { timers_.erase(timer); }

 private:
  Reactor() = default;
  void run() noexcept;
  void run_tasks();
  int run_timers();
  void ring() noexcept;

  struct Watch {
    int fd;
    std::shared_ptr<Handler> handler;
  };

  UniqueFd epoll_;
  UniqueFd wake_;
  std::thread thread_;
  std::mutex mutex_;
  std::vector<Task> tasks_;  // guarded by mutex_
  bool stopping_ = false;    // guarded by mutex_
  std::once_flag joined_;
  std::unordered_map<Token, Watch> watches_;
  std::unordered_map<int, Token> token_of_;
  std::map<TimerId, Task> timers_;
  Token next_token_ = 1;
  std::uint64_t generation_ = 0;  // of the process, by number of forks
  std::uint64_t next_timer_ = 1;
};

}  // namespace pycomm
