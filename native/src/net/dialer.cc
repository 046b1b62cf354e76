#include "net/dialer.h"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

namespace pycomm {
namespace {

constexpr double kFirstPause_s = 0.002;
constexpr double kLongestPause_s = 0.25;
// One attempt; then another connection is tried, since the answer may have been lost with an overrun backlog.
constexpr double kAttempt_s = 10.0;

class Dial : public Reactor::Handler, public std::enable_shared_from_this<Dial> {
 public:
  Dial(Reactor& reactor, DialConfig config)
      : reactor_(reactor), config_(std::move(config)), usable_(config_.targets.size(), true) {}

  void attempt() {
    if (config_.deadline.passed()) return give_up();
    for (target_ = 0; target_ < usable_.size(); ++target_) {
      if (!usable_[target_]) continue;
      bool pending = false;
      int error = 0;
      UniqueFd fd = start_connect(config_.targets[target_], pending, error);
      if (fd) return begin(std::move(fd), pending);
      last_ = Status(Code::unavailable, errno_text("cannot connect to " + config_.targets[target_].text(), error));
      rule_out(error);
    }
    retry();
  }

  void on_ready(std::uint32_t) noexcept override {
    if (pending_) {
      const int error = connect_result(fd_.get());
      if (error != 0) {
        last_ = Status(Code::unavailable, errno_text("cannot connect to " + config_.targets[target_].text(), error));
        rule_out(error);
        return retry();
      }
      pending_ = false;
    }
    const Handshake::State state = shake_->advance(fd_.get());
    if (state == Handshake::State::reading || state == Handshake::State::writing) {
      reactor_.rearm(fd_.get(), token_, state == Handshake::State::reading ? EPOLLIN : EPOLLOUT);
      return;
    }
    last_ = shake_->why();
    if (state == Handshake::State::failed) return last_.code() == Code::peer_lost ? retry() : end(last_);
    reactor_.forget(fd_.get());
    reactor_.cancel(timer_);
    end(std::move(fd_));
  }

 private:
  void begin(UniqueFd fd, bool pending) {
    fd_ = std::move(fd);
    pending_ = pending;
    tune_tcp(fd_.get());
    shake_ = std::make_unique<Handshake>(Handshake::client(config_.secret, config_.hello));
    token_ = reactor_.watch(fd_.get(), EPOLLOUT, shared_from_this());
    if (token_ == 0) {
      last_ = Status(Code::resource, "cannot watch a new connection: out of memory or descriptors");
      return retry();
    }
    timer_ = reactor_.after(std::min(kAttempt_s, seconds_left()), [self = shared_from_this()] {
      self->last_ = Status(Code::deadline, "no answer from " + self->config_.targets[self->target_].text());
      self->retry();
    });
  }

  double seconds_left() const {
    if (config_.deadline.at_ns == INT64_MAX) return 1e9;
    return std::max(0.0, static_cast<double>(config_.deadline.at_ns - now_ns()) * 1e-9);
  }

  void rule_out(int error) {
    if (error == ECONNREFUSED && config_.targets[target_].family() == AF_UNIX && config_.targets.size() > 1)
      usable_[target_] = false;
  }

  void retry() {
    reactor_.cancel(timer_);
    if (fd_) reactor_.forget(fd_.get());
    fd_.reset();
    if (seconds_left() <= 0.0) return give_up();
    reactor_.after(std::min(pause_s_, seconds_left()), [self = shared_from_this()] { self->attempt(); });
    pause_s_ = std::min(pause_s_ * 2, kLongestPause_s);
  }

  void give_up() { end(Status(Code::deadline, "not connected in time: " + last_.message())); }

  void end(Result<UniqueFd> result) {
    reactor_.cancel(timer_);
    if (fd_) reactor_.forget(fd_.get());
    fd_.reset();
    const auto done = std::exchange(config_.done, nullptr);
    if (done) done(std::move(result), target_);
  }

  Reactor& reactor_;
  DialConfig config_;
  std::vector<bool> usable_;
  std::size_t target_ = 0;
  UniqueFd fd_;
  bool pending_ = false;
  std::unique_ptr<Handshake> shake_;
  Reactor::Token token_ = 0;
  Reactor::TimerId timer_{};
  double pause_s_ = kFirstPause_s;
  Status last_;
};

}  // namespace

void dial(Reactor& reactor, DialConfig config) { std::make_shared<Dial>(reactor, std::move(config))->attempt(); }

}  // namespace pycomm
