#include "net/reactor.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <string>
#include <system_error>

#include "base/socket.h"
#include "pycomm/wait.h"

namespace pycomm {
namespace {

constexpr Reactor::Token kWakeToken = 0;

// How many forks lie between the first process that used a reactor and this one.
std::atomic<std::uint64_t> process_generation{0};

void count_forks() {
  static std::once_flag once;
  std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { process_generation.fetch_add(1); }); });
}

// Blocks all signals while it lives, so that a thread started meanwhile never runs the program's handlers.
class SignalsBlocked {
 public:
  SignalsBlocked() noexcept {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_;
};

}  // namespace

Result<std::unique_ptr<Reactor>> Reactor::start(const char* name) {
  count_forks();
  std::unique_ptr<Reactor> reactor(new Reactor);
  reactor->generation_ = process_generation.load();
  reactor->epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  reactor->wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kWakeToken;
  if (!reactor->epoll_ || !reactor->wake_ ||
      ::epoll_ctl(reactor->epoll_.get(), EPOLL_CTL_ADD, reactor->wake_.get(), &event) != 0)
    return Status(Code::resource, errno_text("cannot create the event queue of a network thread", errno));
  const SignalsBlocked blocked;
  try {
    reactor->thread_ = std::thread([self = reactor.get()] { self->run(); });
  } catch (const std::system_error& error) {
    return Status(Code::resource, std::string("cannot start a network thread: ") + error.what());
  }
  pthread_setname_np(reactor->thread_.native_handle(), name);
  return reactor;
}

Reactor::~Reactor() { stop(); }

bool Reactor::forked() const noexcept { return process_generation.load(std::memory_order_relaxed) != generation_; }

void Reactor::ring() noexcept {
  const std::uint64_t one = 1;
  // The only failure is a full counter, which wakes as well.
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

bool Reactor::post(Task task) {
  if (forked()) return false;
  bool first = false;
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
  }
  if (first) ring();
  return true;
}

void Reactor::call(const Task& task) {
  if (forked()) return;
  if (here()) {
    task();
    return;
  }
  struct {
    std::mutex mutex;
    std::condition_variable changed;
    bool done = false;
  } gate;
  const bool posted = post([&] {
    task();
    const std::lock_guard lock(gate.mutex);
    gate.done = true;
    gate.changed.notify_one();
  });
  if (!posted) {
    stop();  // waits for the thread's end, so that the task has the reactor's state to itself
    task();
    return;
  }
  std::unique_lock lock(gate.mutex);
  gate.changed.wait(lock, [&] { return gate.done; });
}

void Reactor::stop() {
  if (forked()) {
    // The thread exists in the parent only; its handle must not be joined, nor destroyed while joinable.
    if (thread_.joinable()) thread_.detach();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  ring();
  std::call_once(joined_, [this] {
    if (thread_.joinable()) thread_.join();
    timers_.clear();
    token_of_.clear();
    watches_.clear();
  });
}

Reactor::Token Reactor::watch(int fd, std::uint32_t events, std::shared_ptr<Handler> handler) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = next_token_;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return 0;
  watches_[next_token_] = {fd, std::move(handler)};
  token_of_[fd] = next_token_;
  return next_token_++;
}

void Reactor::forget(int fd) {
  const auto found = token_of_.find(fd);
  if (found == token_of_.end()) return;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  watches_.erase(found->second);
  token_of_.erase(found);
}

void Reactor::rearm(int fd, Token token, std::uint32_t events) noexcept {
  epoll_event event{};
  event.events = events;
  event.data.u64 = token;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

Reactor::TimerId Reactor::after(double seconds, Task task) {
  const TimerId id{Deadline::after(seconds).at_ns, next_timer_++};
  timers_.emplace(id, std::move(task));
  return id;
}

void Reactor::run_tasks() {
  std::vector<Task> tasks;
  {
    const std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
  }
  for (const Task& task : tasks) task();
}

// Returns how long epoll may sleep, in milliseconds.
int Reactor::run_timers() {
  while (!timers_.empty()) {
    const std::int64_t left = timers_.begin()->first.first - now_ns();
    if (left > 0) return static_cast<int>(std::min<std::int64_t>(left / 1'000'000 + 1, 60'000));
    const Task task = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    task();
  }
  return -1;
}

void Reactor::run() noexcept {
  std::array<epoll_event, 64> events;
  for (;;) {
    const int timeout_ms = run_timers();
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout_ms);
    for (int i = 0; i < n; ++i) {
      const Token token = events[static_cast<std::size_t>(i)].data.u64;
      if (token == kWakeToken) {
        std::uint64_t count = 0;
        [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
        continue;
      }
      // A handler earlier in this batch may have forgotten this one; the copy keeps it alive while it runs.
      const auto found = watches_.find(token);
      if (found == watches_.end()) continue;
      const std::shared_ptr<Handler> handler = found->second.handler;
      handler->on_ready(events[static_cast<std::size_t>(i)].events);
    }
    run_tasks();
    const std::lock_guard lock(mutex_);
    if (stopping_ && tasks_.empty()) return;
  }
}

}  // namespace pycomm
