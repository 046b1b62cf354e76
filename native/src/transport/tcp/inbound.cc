#include "transport/tcp/inbound.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/socket.h"

namespace pycomm::tcp {
namespace {

constexpr std::size_t kAhead = std::size_t{64} * 1024;
constexpr std::size_t kReduceStep = std::size_t{16} * 1024;          // reduced while still in cache
constexpr std::size_t kBytesPerTurn = std::size_t{4} * 1024 * 1024;  // then others of the reactor get their turn

}  // namespace

Inbound::Inbound(Reactor& reactor, Network& network, int peer, UniqueFd fd)
    : reactor_(reactor), network_(network), peer_(peer), fd_(std::move(fd)), ahead_bytes_(kAhead) {}

bool Inbound::open() { return reactor_.watch(fd_.get(), EPOLLIN | EPOLLRDHUP, shared_from_this()) != 0; }

void Inbound::close() {
  if (!fd_) return;
  if (!paused_) reactor_.forget(fd_.get());
  fd_.reset();
  if (in_frame_ && mode_ == Mode::keep) network_.release(sizeof(header_) + header_.nbytes);
  in_frame_ = false;
  // A landing that is under way was parked when the bytes ran out, and stays so.
  receiver_ = nullptr;
}

void Inbound::forget(std::uint32_t group) {
  if (!in_frame_ || header_.group != group) return;
  receiver_ = nullptr;
  parked_ = false;
  if (mode_ != Mode::keep) mode_ = Mode::discard;
}

void Inbound::resume() {
  if (!paused_ || !fd_) return;
  paused_ = false;
  if (!open()) return network_.ended(shared_from_this(), Status(Code::resource, "cannot watch a data connection"));
  if (begin_frame() == Step::on) work();
}

void Inbound::on_ready(std::uint32_t) noexcept {
  if (parked_) {
    parked_ = false;
    if (!receiver_->resumed(static_cast<int>(header_.src), header_, landing_)) mode_ = Mode::discard;
  }
  work();
}

void Inbound::work() {
  std::size_t budget = kBytesPerTurn;
  for (Step step = Step::on; step == Step::on;) {
    if (in_frame_) {
      if (ahead() > 0 && received_ < header_.nbytes) take_ahead();
      if (received_ < header_.nbytes) {
        step = read_payload();
      } else {
        budget -= std::min(budget, sizeof(FrameHeader) + header_.nbytes);
        finish_frame();
      }
    } else if (ahead() < sizeof(FrameHeader)) {
      // Only here, with nothing whole in hand, may the turn end: epoll knows of what is in the socket.
      step = budget == 0 ? Step::wait : read_header();
    } else {
      std::memcpy(&header_, ahead_bytes_.data() + ahead_begin_, sizeof(header_));
      ahead_begin_ += sizeof(header_);
      step = begin_frame();
    }
  }
}

Inbound::Step Inbound::ended(ssize_t n) {
  const int error = n < 0 ? errno : 0;
  if (n < 0 && error == EINTR) return Step::on;
  if (n < 0 && (error == EAGAIN || error == EWOULDBLOCK)) {
    if (in_frame_ && receiver_ != nullptr && mode_ != Mode::discard) {
      parked_ = true;
      receiver_->parked(static_cast<int>(header_.src), header_, landing_);
    }
    return Step::wait;
  }
  const bool between_frames = n == 0 && !in_frame_ && ahead() == 0;
  if (in_frame_ && receiver_ != nullptr && mode_ != Mode::discard)
    receiver_->parked(static_cast<int>(header_.src), header_, landing_);
  network_.ended(shared_from_this(), between_frames ? Status()
                                     : n == 0
                                         ? Status(Code::peer_lost, "a data connection ended in the middle of a frame")
                                         : Status(Code::peer_lost, errno_text("a data connection broke", error)));
  return Step::gone;
}

Inbound::Step Inbound::read_header() {
  if (ahead_begin_ > 0) {
    std::memmove(ahead_bytes_.data(), ahead_bytes_.data() + ahead_begin_, ahead());
    ahead_end_ -= ahead_begin_;
    ahead_begin_ = 0;
  }
  const ssize_t n = ::recv(fd_.get(), ahead_bytes_.data() + ahead_end_, ahead_bytes_.size() - ahead_end_, 0);
  if (n <= 0) return ended(n);
  ahead_end_ += static_cast<std::size_t>(n);
  return Step::on;
}

Status Inbound::check() const {
  const char* what = nullptr;
  if (header_.magic != kFrameMagic)
    what = "no frame where one should begin";
  else if (header_.type > FrameType::refuse)
    what = "a frame of unknown type";
  else if (header_.dtype > DType::boolean)
    what = "a frame of unknown dtype";
  else if (header_.nbytes > kMaxFramePayload)
    what = "a frame that is too long";
  else if (header_.nbytes > 0 && (header_.nbytes > header_.total || header_.offset > header_.total - header_.nbytes))
    what = "a frame that lies outside its message";
  if (what == nullptr) return {};
  return {Code::protocol, std::string("it sent ") + what};
}

Inbound::Step Inbound::begin_frame() {
  Status wrong = check();
  const Network::Route* route = wrong.ok() ? network_.route(header_.group) : nullptr;
  if (route != nullptr && (header_.src >= route->members.size() || route->members[header_.src] != peer_))
    wrong = Status(Code::protocol, "it sent a frame in the name of another rank");
  if (!wrong.ok()) {
    network_.ended(shared_from_this(), wrong);
    return Step::gone;
  }
  received_ = 0;
  reduced_ = 0;
  receiver_ = nullptr;
  landing_ = {};
  mode_ = Mode::discard;
  if (route != nullptr) {
    receiver_ = route->receiver;
    landing_ = receiver_->landing(static_cast<int>(header_.src), header_);
    if (landing_.dst != nullptr) mode_ = landing_.reduce != nullptr ? Mode::reduce : Mode::copy;
  } else if (!network_.retired(header_.group)) {
    if (!network_.may_keep(sizeof(header_) + header_.nbytes)) return pause();
    network_.reserve(sizeof(header_) + header_.nbytes);
    kept_.resize(header_.nbytes);
    mode_ = Mode::keep;
  }
  if ((mode_ == Mode::reduce || mode_ == Mode::discard) && bounce_.size() < header_.nbytes)
    bounce_.resize(kMaxFramePayload);
  in_frame_ = true;
  return Step::on;
}

Inbound::Step Inbound::pause() {
  // Out of the event queue altogether: the end of a connection would be reported over and over.
  paused_ = true;
  reactor_.forget(fd_.get());
  return Step::wait;
}

std::byte* Inbound::target() {
  switch (mode_) {
    case Mode::copy:
      return static_cast<std::byte*>(landing_.dst) + received_;
    case Mode::keep:
      return kept_.data() + received_;
    default:
      return bounce_.data() + received_;
  }
}

void Inbound::take_ahead() {
  const std::size_t part = std::min(ahead(), header_.nbytes - received_);
  if (mode_ != Mode::discard) std::memcpy(target(), ahead_bytes_.data() + ahead_begin_, part);
  ahead_begin_ += part;
  arrived(part);
}

Inbound::Step Inbound::read_payload() {
  const std::size_t left = header_.nbytes - received_;
  if (mode_ == Mode::discard && bounce_.size() < header_.nbytes) bounce_.resize(kMaxFramePayload);
  iovec parts[2] = {{target(), left}, {ahead_bytes_.data(), ahead_bytes_.size()}};
  const ssize_t n = ::readv(fd_.get(), parts, 2);
  if (n <= 0) return ended(n);
  const std::size_t part = std::min(static_cast<std::size_t>(n), left);
  ahead_begin_ = 0;
  ahead_end_ = static_cast<std::size_t>(n) - part;
  arrived(part);
  return Step::on;
}

void Inbound::arrived(std::size_t nbytes) {
  received_ += nbytes;
  if (mode_ != Mode::reduce) return;
  const bool complete = received_ == header_.nbytes;
  const std::size_t whole = (received_ - reduced_) / landing_.itemsize * landing_.itemsize;
  if (whole == 0 || (whole < kReduceStep && !complete)) return;
  landing_.reduce(static_cast<std::byte*>(landing_.dst) + reduced_,
                  static_cast<const std::byte*>(landing_.operand) + reduced_, bounce_.data() + reduced_,
                  whole / landing_.itemsize);
  reduced_ += whole;
}

void Inbound::finish_frame() {
  in_frame_ = false;
  if (mode_ == Mode::keep) {
    network_.keep({peer_, header_, std::move(kept_)});
    kept_ = {};
  } else if (receiver_ != nullptr) {
    std::exchange(receiver_, nullptr)->landed(static_cast<int>(header_.src), header_, landing_);
  }
}

}  // namespace pycomm::tcp
