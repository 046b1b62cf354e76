#include "net/control.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/socket.h"

namespace pycomm {
namespace {

constexpr std::uint32_t kMagic = 0x43435950;  // "PYCC"
constexpr std::size_t kMaxQueued = std::size_t{64} << 20;
constexpr std::size_t kMaxDescriptors = 8;  // in one message of the kernel

struct Head {
  std::uint32_t magic = kMagic;
  ControlMessage::Kind kind{};
  std::uint8_t code = 0;
  std::uint16_t zero = 0;
  std::uint32_t group = 0;
  std::uint32_t nbytes = 0;
  std::uint64_t seq = 0;
};
static_assert(sizeof(Head) == 24);

bool is_known(ControlMessage::Kind kind) noexcept {
  using Kind = ControlMessage::Kind;
  return kind <= Kind::app || (kind >= Kind::bye && kind <= Kind::region_refuse);
}

}  // namespace

ControlConnection::ControlConnection(Reactor& reactor, UniqueFd fd, bool is_unix, Hooks hooks)
    : reactor_(reactor), fd_(std::move(fd)), is_unix_(is_unix), hooks_(std::move(hooks)) {}

ControlConnection::~ControlConnection() = default;

bool ControlConnection::open() {
  token_ = reactor_.watch(fd_.get(), EPOLLIN, shared_from_this());
  return token_ != 0;
}

void ControlConnection::close() {
  if (!fd_) return;
  reactor_.forget(fd_.get());
  fd_.reset();
  out_.clear();
  in_fds_.clear();
}

void ControlConnection::end(const Status& why) {
  if (!fd_) return;
  close();
  hooks_.ended(why);
}

void ControlConnection::send(const ControlMessage& message, std::shared_ptr<const UniqueFd> fd) {
  if (!fd_ || finishing_) return;
  Head head;
  head.kind = message.kind;
  head.code = message.code;
  head.group = message.group;
  head.nbytes = static_cast<std::uint32_t>(message.payload.size());
  head.seq = message.seq;
  std::string bytes(reinterpret_cast<const char*>(&head), sizeof(head));
  bytes += message.payload;
  out_nbytes_ += bytes.size();
  out_.push_back({std::move(bytes), std::move(fd)});
  // Later, from the queue: a failing write must not call back into whoever is sending.
  if (out_nbytes_ > kMaxQueued) {
    reactor_.post([self = shared_from_this()] {
      self->end({Code::peer_lost, "it has not read control messages for long and too many wait"});
    });
  } else if (out_.size() == 1) {
    write();
  }
}

void ControlConnection::finish() {
  finishing_ = true;
  if (fd_ && out_.empty()) ::shutdown(fd_.get(), SHUT_WR);
}

// A broken connection is left to the read side, which still finds what came before the break.
void ControlConnection::write() {
  while (!out_.empty()) {
    Out& front = out_.front();
    iovec part{front.bytes.data() + front.sent, front.bytes.size() - front.sent};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))] = {};
    if (front.fd && front.sent == 0) {
      message.msg_control = space;
      message.msg_controllen = sizeof(space);
      cmsghdr* rights = CMSG_FIRSTHDR(&message);
      rights->cmsg_level = SOL_SOCKET;
      rights->cmsg_type = SCM_RIGHTS;
      rights->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = front.fd->get();
      std::memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    front.sent += static_cast<std::size_t>(n);
    out_nbytes_ -= static_cast<std::size_t>(n);
    if (front.sent == front.bytes.size()) out_.pop_front();
  }
  if (finishing_ && out_.empty()) ::shutdown(fd_.get(), SHUT_WR);
  const bool full = !out_.empty() && (errno == EAGAIN || errno == EWOULDBLOCK);
  reactor_.rearm(fd_.get(), token_, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

void ControlConnection::take_descriptors(const void* message) {
  auto* header = const_cast<msghdr*>(static_cast<const msghdr*>(message));
  for (cmsghdr* at = CMSG_FIRSTHDR(header); at != nullptr; at = CMSG_NXTHDR(header, at)) {
    if (at->cmsg_level != SOL_SOCKET || at->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(at) + i * sizeof(int), sizeof(fd));
      in_fds_.emplace_back(fd);
    }
  }
}

bool ControlConnection::dispatch(Status& why) {
  std::size_t at = 0;
  const auto self = shared_from_this();
  while (fd_ && in_.size() - at >= sizeof(Head)) {
    Head head;
    std::memcpy(&head, in_.data() + at, sizeof(head));
    if (head.magic != kMagic || !is_known(head.kind) || head.nbytes > ControlMessage::kMaxPayload) {
      why = Status(Code::protocol, "it sent a malformed control message");
      return false;
    }
    if (in_.size() - at - sizeof(head) < head.nbytes) break;
    ControlMessage message;
    message.group = head.group;
    message.kind = head.kind;
    message.code = head.code;
    message.seq = head.seq;
    message.payload.assign(in_, at + sizeof(head), head.nbytes);
    at += sizeof(head) + head.nbytes;
    UniqueFd fd;
    if (head.kind == ControlMessage::Kind::region_offer) {
      if (in_fds_.empty()) {
        why = Status(Code::protocol, "it offered memory without a descriptor");
        return false;
      }
      fd = std::move(in_fds_.front());
      in_fds_.pop_front();
    }
    hooks_.message(message, std::move(fd));
  }
  in_.erase(0, at);
  return true;
}

// False when the connection has ended.
bool ControlConnection::read(Status& why) {
  char bytes[16 * 1024];
  for (int budget = 64; budget > 0 && fd_; --budget) {
    iovec part{bytes, sizeof(bytes)};
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int) * kMaxDescriptors)];
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = space;
    message.msg_controllen = sizeof(space);
    const ssize_t n = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return true;
    if (n < 0) {
      why = Status(Code::peer_lost, errno_text("the connection to it broke", errno));
      return false;
    }
    take_descriptors(&message);
    if (n == 0) return false;
    in_.append(bytes, static_cast<std::size_t>(n));
    if (in_fds_.size() > 4096) {
      why = Status(Code::protocol, "it sent descriptors that nobody asked for");
      return false;
    }
    if (!dispatch(why)) return false;
  }
  return true;
}

void ControlConnection::on_ready(std::uint32_t events) noexcept {
  const auto self = shared_from_this();
  if (fd_ && (events & EPOLLOUT)) write();
  Status why;
  if (fd_ && !read(why)) end(why);
}

}  // namespace pycomm
