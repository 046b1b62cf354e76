#include "net/acceptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "base/socket.h"

namespace pycomm {
namespace {

// A full house is cleared of connections older than this, one at a time: an honest handshake takes milliseconds.
constexpr std::int64_t kPatience_ns = 250'000'000;
constexpr double kPause_s = 0.05;

}  // namespace

// One connection that has not proved itself yet.
class Acceptor::HalfOpen : public Reactor::Handler, public std::enable_shared_from_this<HalfOpen> {
 public:
  HalfOpen(Acceptor& acceptor, UniqueFd fd, std::uint64_t number)
      : acceptor_(acceptor),
        fd_(std::move(fd)),
        number_(number),
        began_ns_(now_ns()),
        shake_(Handshake::server(acceptor.config_.secret, acceptor.config_.accepts)) {}

  bool open() {
    token_ = acceptor_.reactor_.watch(fd_.get(), EPOLLIN, shared_from_this());
    if (token_ == 0) return false;
    timer_ = acceptor_.reactor_.after(acceptor_.config_.handshake_s,
                                      [self = shared_from_this()] { self->acceptor_.finished(self, true); });
    return true;
  }
  void close() {
    acceptor_.reactor_.cancel(timer_);
    if (fd_) acceptor_.reactor_.forget(fd_.get());
    fd_.reset();
  }
  void on_ready(std::uint32_t) noexcept override {
    const Handshake::State state = shake_.advance(fd_.get());
    if (state == Handshake::State::reading || state == Handshake::State::writing) {
      acceptor_.reactor_.rearm(fd_.get(), token_, state == Handshake::State::reading ? EPOLLIN : EPOLLOUT);
    } else {
      acceptor_.finished(shared_from_this(), false);
    }
  }
  UniqueFd take() {
    acceptor_.reactor_.forget(fd_.get());
    return std::move(fd_);
  }
  const Handshake& shake() const noexcept { return shake_; }
  std::uint64_t number() const noexcept { return number_; }
  std::int64_t age_ns() const noexcept { return now_ns() - began_ns_; }

 private:
  Acceptor& acceptor_;
  UniqueFd fd_;
  std::uint64_t number_;
  std::int64_t began_ns_;
  Handshake shake_;
  Reactor::Token token_ = 0;
  Reactor::TimerId timer_{};
};

bool Acceptor::Older::operator()(const std::shared_ptr<HalfOpen>& a,
                                 const std::shared_ptr<HalfOpen>& b) const noexcept {
  return a->number() < b->number();
}

Acceptor::Acceptor(Reactor& reactor, UniqueFd listener, AcceptorConfig config)
    : reactor_(reactor), listener_(std::move(listener)), config_(std::move(config)) {}

Acceptor::~Acceptor() = default;

bool Acceptor::open() {
  token_ = reactor_.watch(listener_.get(), EPOLLIN, shared_from_this());
  return token_ != 0;
}

void Acceptor::close() {
  if (!listener_) return;
  reactor_.forget(listener_.get());
  listener_.reset();
  while (!half_open_.empty()) {
    (*half_open_.begin())->close();
    half_open_.erase(half_open_.begin());
  }
}

void Acceptor::pause(double seconds) {
  if (paused_) return;
  paused_ = true;
  reactor_.rearm(listener_.get(), token_, 0);
  reactor_.after(seconds, [self = shared_from_this()] {
    self->paused_ = false;
    if (self->listener_) self->reactor_.rearm(self->listener_.get(), self->token_, EPOLLIN);
  });
}

bool Acceptor::make_room() {
  if (half_open_.size() < config_.max_half_open) return true;
  const std::shared_ptr<HalfOpen> oldest = *half_open_.begin();
  if (oldest->age_ns() < kPatience_ns) return false;
  finished(oldest, true);
  return true;
}

void Acceptor::on_ready(std::uint32_t) noexcept {
  for (int i = 0; i < 64 && listener_; ++i) {
    if (!make_room()) return pause(kPause_s);
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) {
      // Out of descriptors or memory: the connection stays in the backlog; asking again at once would spin.
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) pause(kPause_s);
      if (errno == ECONNABORTED || errno == EINTR) continue;
      return;
    }
    tune_tcp(fd.get());
    auto half_open = std::make_shared<HalfOpen>(*this, std::move(fd), next_++);
    if (half_open->open()) half_open_.insert(std::move(half_open));
  }
}

void Acceptor::finished(const std::shared_ptr<HalfOpen>& half_open, bool expired) {
  if (half_open_.erase(half_open) == 0) return;
  const Handshake& shake = half_open->shake();
  if (expired) {
    ++counts_.expired;
  } else if (shake.why().ok()) {
    UniqueFd fd = half_open->take();
    half_open->close();
    config_.welcome(std::move(fd), shake.hello());
    return;
  } else if (shake.why().code() == Code::auth) {
    ++counts_.denied;
  } else {
    ++counts_.garbage;
  }
  half_open->close();
}

}  // namespace pycomm
