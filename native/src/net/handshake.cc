#include "net/handshake.h"

#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/random.h"
#include "base/sha256.h"
#include "base/socket.h"

namespace pycomm {
namespace {

constexpr std::uint32_t kMagic = 0x48435950;  // "PYCH"
constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kSecond = 32;  // second half of a frame: a nonce or a MAC
enum Verdict : std::uint8_t { kWelcome = 1, kWrongSecret = 2, kWrongDoor = 3 };

// The first half of every frame. Hello uses all of it, the others only the head.
struct Head {
  std::uint32_t magic = kMagic;
  std::uint8_t version = kVersion;
  std::uint8_t kind = 0;  // purpose of a hello, value of a verdict
  std::uint16_t zero = 0;
  std::uint32_t from = 0;
  std::uint32_t to = 0;
  std::uint32_t index = 0;
  std::uint32_t padding = 0;
  std::uint64_t instance = 0;
};
static_assert(sizeof(Head) == kSecond);

Head head_of(const std::array<char, 64>& frame) {
  Head head;
  std::memcpy(&head, frame.data(), sizeof(head));
  return head;
}

}  // namespace

Handshake Handshake::client(std::string secret, const Hello& hello) {
  Handshake shake(std::move(secret), Step::client_hello);
  shake.hello_ = hello;
  Head head;
  head.kind = static_cast<std::uint8_t>(hello.purpose);
  head.from = hello.from;
  head.to = hello.to;
  head.index = hello.index;
  head.instance = hello.instance;
  std::memcpy(shake.hello_frame_.data(), &head, sizeof(head));
  random_bytes(shake.hello_frame_.data() + kSecond, kSecond);
  shake.frame_ = shake.hello_frame_;
  return shake;
}

Handshake Handshake::server(std::string secret, Accepts accepts) {
  Handshake shake(std::move(secret), Step::server_hello);
  shake.accepts_ = std::move(accepts);
  return shake;
}

bool Handshake::sends() const noexcept {
  return step_ == Step::client_hello || step_ == Step::client_proof || step_ == Step::server_challenge ||
         step_ == Step::server_verdict;
}

void Handshake::prove(const char* label, char* out) const {
  std::string proved = label;
  proved.append(hello_frame_.data(), hello_frame_.size());
  proved.append(challenge_.data(), challenge_.size());
  const Digest mac = hmac_sha256(secret_, proved);
  std::memcpy(out, mac.data(), mac.size());
}

bool Handshake::proved(const char* label, const char* mac) const {
  Digest expected;
  Digest got;
  prove(label, reinterpret_cast<char*>(expected.data()));
  std::memcpy(got.data(), mac, got.size());
  return same_digest(expected, got);
}

void Handshake::fail(Code code, std::string message) {
  step_ = Step::over;
  why_ = Status(code, std::move(message));
}

void Handshake::hello_received() {
  const Head head = head_of(frame_);
  if (head.kind < static_cast<std::uint8_t>(Purpose::store) || head.kind > static_cast<std::uint8_t>(Purpose::data))
    return fail(Code::protocol, "a hello of unknown purpose");
  hello_ = {static_cast<Purpose>(head.kind), head.from, head.to, head.index, head.instance};
  hello_frame_ = frame_;
  const Head answer;
  std::memcpy(challenge_.data(), &answer, sizeof(answer));
  random_bytes(challenge_.data() + kSecond, kSecond);
  frame_ = challenge_;
  step_ = Step::server_challenge;
}

void Handshake::start_verdict() {
  Head head;
  const bool knows = proved("pycomm client", frame_.data() + kSecond);
  const bool welcome = knows && (!accepts_ || accepts_(hello_));
  head.kind = welcome ? kWelcome : knows ? kWrongDoor : kWrongSecret;
  if (!knows) verdict_ = Status(Code::auth, "the connecting side does not know the secret of this job");
  if (knows && !welcome) verdict_ = Status(Code::protocol, "a connection meant for somebody else");
  frame_.fill(0);
  std::memcpy(frame_.data(), &head, sizeof(head));
  // To a side that does not know the secret nothing is proved.
  if (knows) prove("pycomm server", frame_.data() + kSecond);
  step_ = Step::server_verdict;
}

void Handshake::verdict_received() {
  const Head head = head_of(frame_);
  if (head.kind == kWrongSecret)
    return fail(Code::auth, "the other side refused this rank's secret; give every rank of the job the same one");
  if (!proved("pycomm server", frame_.data() + kSecond))
    return fail(Code::auth, "the other side does not know the secret of this job");
  if (head.kind != kWelcome) return fail(Code::protocol, "the address belongs to another rank or an earlier job");
  step_ = Step::over;
}

void Handshake::frame_received() {
  const Head head = head_of(frame_);
  if (head.magic != kMagic) return fail(Code::protocol, "the other side does not speak this protocol");
  if (head.version != kVersion)
    return fail(Code::protocol, "the other side speaks version " + std::to_string(head.version) +
                                    " of the handshake, this side version " + std::to_string(kVersion) +
                                    "; install the same release everywhere");
  if (step_ == Step::server_hello) return hello_received();
  if (step_ == Step::server_proof) return start_verdict();
  if (step_ == Step::client_verdict) return verdict_received();
  challenge_ = frame_;  // client_challenge
  frame_.fill(0);
  const Head answer;
  std::memcpy(frame_.data(), &answer, sizeof(answer));
  prove("pycomm client", frame_.data() + kSecond);
  step_ = Step::client_proof;
}

Handshake::State Handshake::advance(int fd) {
  while (step_ != Step::over) {
    const bool out = sends();
    char* at = frame_.data() + moved_;
    const std::size_t left = frame_.size() - moved_;
    const ssize_t n = out ? ::send(fd, at, left, MSG_NOSIGNAL) : ::recv(fd, at, left, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return out ? State::writing : State::reading;
    if (n < 0) {
      fail(Code::peer_lost, errno_text("the connection broke in the handshake", errno));
    } else if (n == 0 && !out) {
      fail(Code::peer_lost, "the other side closed the connection in the handshake");
    } else {
      moved_ += static_cast<std::size_t>(n);
      if (moved_ < frame_.size()) continue;
      moved_ = 0;
      if (!out) {
        frame_received();
      } else if (step_ == Step::server_verdict) {
        why_ = verdict_;
        step_ = Step::over;
      } else {
        step_ = static_cast<Step>(static_cast<std::uint8_t>(step_) + 1);
      }
    }
  }
  return why_.ok() ? State::done : State::failed;
}

Status Handshake::finish(int fd, Deadline deadline) {
  for (;;) {
    const State state = advance(fd);
    if (state == State::done || state == State::failed) return why_;
    if (!wait_ready(fd, state == State::reading ? POLLIN : POLLOUT, deadline))
      return {Code::deadline, "the other side did not answer the handshake in time"};
  }
}

}  // namespace pycomm
