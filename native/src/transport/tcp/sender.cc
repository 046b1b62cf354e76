#include "transport/tcp/sender.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/socket.h"

namespace pycomm::tcp {
namespace {

constexpr std::size_t kFramesPerCall = 32;
constexpr int kCallsPerTurn = 16;  // then others of the reactor get their turn

// Sends as much of the parts as the socket takes. Bytes, or minus an errno.
ssize_t send_parts(int fd, iovec* parts, std::size_t count) noexcept {
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  for (;;) {
    const ssize_t n = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return n;
    if (errno != EINTR) return -errno;
  }
}

}  // namespace

void Sender::give_back(Frame& frame) noexcept {
  if (frame.lent != nullptr) frame.lent->fetch_sub(1, std::memory_order_release);
  frame.lent = nullptr;
}

void Sender::want_write(bool on) noexcept {
  if (on == wants_write_) return;
  wants_write_ = on;
  reactor_.rearm(fd_.get(), token_, on ? EPOLLIN | EPOLLRDHUP | EPOLLOUT : EPOLLIN | EPOLLRDHUP);
}

void Sender::post(const FrameHeader& header, const void* payload, Lent& lent, Receiver& owner) {
  Frame frame{header, static_cast<const std::byte*>(payload), &lent, &owner};
  const std::lock_guard lock(mutex_);
  if (state_ == State::dropped) return give_back(frame);
  if (state_ == State::open && queue_.empty()) {
    std::array<iovec, 2> parts{
        {{&frame.header, sizeof(FrameHeader)}, {const_cast<std::byte*>(frame.payload), frame.header.nbytes}}};
    const ssize_t n = send_parts(fd_.get(), parts.data(), parts.size());
    if (n > 0) frame.sent = static_cast<std::size_t>(n);
    if (frame.sent == frame.nbytes()) return give_back(frame);
    // An error other than a full socket is seen, and told, by the reactor: it hears of it as well.
    want_write(true);
  }
  queue_.push_back(std::move(frame));
  if (state_ != State::unopened) return;
  state_ = State::opening;
  reactor_.post(
      [self = shared_from_this()] { self->hooks_.dial([self](Result<UniqueFd> fd) { self->opened(std::move(fd)); }); });
}

void Sender::opened(Result<UniqueFd> fd) {
  Status failed = fd.status();
  {
    const std::lock_guard lock(mutex_);
    if (state_ == State::dropped) return;
    if (fd.ok()) {
      fd_ = std::move(*fd);
      wants_write_ = true;
      token_ = reactor_.watch(fd_.get(), EPOLLIN | EPOLLRDHUP | EPOLLOUT, shared_from_this());
      state_ = State::open;
      if (token_ == 0) failed = Status(Code::resource, "cannot watch a data connection");
    }
  }
  if (!failed.ok()) hooks_.broken(failed);
}

// Sends from the front of the queue and takes off what is complete. The lock is held.
int Sender::send_some() {
  std::array<iovec, 2 * kFramesPerCall> parts;
  std::size_t count = 0;
  for (std::size_t i = 0; i < std::min(queue_.size(), kFramesPerCall); ++i) {
    Frame& frame = queue_[i];
    const std::size_t head_sent = std::min(frame.sent, sizeof(FrameHeader));
    const std::size_t body_sent = frame.sent - head_sent;
    if (head_sent < sizeof(FrameHeader))
      parts[count++] = {reinterpret_cast<char*>(&frame.header) + head_sent, sizeof(FrameHeader) - head_sent};
    if (body_sent < frame.header.nbytes)
      parts[count++] = {const_cast<std::byte*>(frame.payload) + body_sent, frame.header.nbytes - body_sent};
  }
  const ssize_t n = send_parts(fd_.get(), parts.data(), count);
  if (n < 0) return static_cast<int>(-n);
  auto left = static_cast<std::size_t>(n);
  while (left > 0) {
    Frame& front = queue_.front();
    const std::size_t part = std::min(left, front.nbytes() - front.sent);
    front.sent += part;
    left -= part;
    if (front.sent < front.nbytes()) break;
    give_back(front);
    queue_.pop_front();
  }
  return 0;
}

int Sender::flush() {
  std::vector<Receiver*> owners;
  int error = 0;
  {
    const std::lock_guard lock(mutex_);
    if (state_ != State::open) return 0;
    for (int call = 0; call < kCallsPerTurn && !queue_.empty() && error == 0; ++call) {
      const std::size_t before = std::min(queue_.size(), kFramesPerCall);
      for (std::size_t i = 0; i < before; ++i) {
        Receiver* owner = queue_[i].owner;
        if (owner != nullptr && std::find(owners.begin(), owners.end(), owner) == owners.end()) owners.push_back(owner);
      }
      error = send_some();
    }
    if (queue_.empty()) want_write(false);
  }
  // Owners stay alive: they go only after a pass through this thread (Network::close_route).
  for (Receiver* owner : owners) owner->returned();
  return error == EAGAIN || error == EWOULDBLOCK ? 0 : error;
}

void Sender::on_ready(std::uint32_t events) noexcept {
  int error = 0;
  if (events & EPOLLOUT) error = flush();
  if (error == 0 && (events & EPOLLERR)) error = connect_result(fd_.get());
  if (error != 0) return hooks_.broken(Status(Code::peer_lost, errno_text("a data connection broke", error)));
  // The other side never sends here: what is readable is its end.
  if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) hooks_.broken(Status(Code::peer_lost, ""));
}

void Sender::cancel(const std::function<bool(const FrameHeader&)>& chosen) {
  const std::lock_guard lock(mutex_);
  std::deque<Frame> kept;
  for (Frame& frame : queue_) {
    if (chosen(frame.header)) {
      if (frame.sent == 0) {
        give_back(frame);
        continue;
      }
      if (frame.lent != nullptr) {
        frame.copy = std::make_unique<std::byte[]>(frame.header.nbytes);
        if (frame.header.nbytes > 0) std::memcpy(frame.copy.get(), frame.payload, frame.header.nbytes);
        frame.payload = frame.copy.get();
      }
      give_back(frame);
      frame.owner = nullptr;
    }
    kept.push_back(std::move(frame));
  }
  queue_.swap(kept);
}

void Sender::drop() {
  std::vector<Receiver*> owners;
  {
    const std::lock_guard lock(mutex_);
    state_ = State::dropped;
    for (Frame& frame : queue_) {
      give_back(frame);
      if (frame.owner != nullptr) owners.push_back(frame.owner);
    }
    queue_.clear();
    if (fd_) reactor_.forget(fd_.get());
    fd_.reset();
  }
  std::sort(owners.begin(), owners.end());
  owners.erase(std::unique(owners.begin(), owners.end()), owners.end());
  for (Receiver* owner : owners) owner->returned();
}

bool Sender::is_open() const {
  const std::lock_guard lock(mutex_);
  return state_ == State::open;
}

bool Sender::drained() const {
  const std::lock_guard lock(mutex_);
  return queue_.empty();
}

}  // namespace pycomm::tcp
