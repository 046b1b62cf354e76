// Control messages: what ranks tell one another beside data. One connection per pair of ranks, opened once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "net/reactor.h"
#include "pycomm/status.h"

namespace pycomm {

struct ControlMessage {
  enum class Kind : std::uint8_t {
    // Of groups; their meaning is the group's.
    failure,  // of the group: code, and the ranks at fault and text as payload
    dissent,  // a call that others disagree with: seq, Descriptor as payload
    leave,    // the sender closes the group after seq collectives
    where,    // which operation have you come to?
    here,     // the answer: seq
    app,
    // Of the context.
    bye = 64,
    region_offer,  // carries a descriptor
    region_echo,
    region_confirm,
    region_refuse,
  };
  static constexpr std::size_t kMaxPayload = std::size_t{64} * 1024;

  std::uint32_t group = 0;
  Kind kind = Kind::app;
  std::uint8_t code = 0;
  std::uint64_t seq = 0;
  std::string payload;

  void set_payload(const void* data, std::size_t nbytes) { payload.assign(static_cast<const char*>(data), nbytes); }
};

// Reactor thread only. Descriptors travel only where the connection is a unix socket.
class ControlConnection : public Reactor::Handler, public std::enable_shared_from_this<ControlConnection> {
 public:
  struct Hooks {
    // `fd` belongs to a message that carries one, and is empty otherwise.
    std::function<void(const ControlMessage&, UniqueFd fd)> message;
    // Once, after the last message: the other side hung up (ok), the connection broke or the peer sent nonsense.
    std::function<void(const Status&)> ended;
  };
  ControlConnection(Reactor& reactor, UniqueFd fd, bool is_unix, Hooks hooks);
  ~ControlConnection() override;

  bool open();
  // Queues; the message is sent as soon as the other side takes it. Nothing happens once the connection has ended.
  void send(const ControlMessage& message, std::shared_ptr<const UniqueFd> fd = nullptr);
  // No more will be sent; what is queued still is.
  void finish();
  void close();
  bool is_unix() const noexcept { return is_unix_; }
  // Handles what has arrived already, before somebody draws conclusions from other signs.
  void drain() { on_ready(0); }
  void on_ready(std::uint32_t events) noexcept override;

 private:
  struct Out {
    std::string bytes;
    std::shared_ptr<const UniqueFd> fd;
    std::size_t sent = 0;
  };
  void write();
  bool read(Status& why);
  void take_descriptors(const void* message);
  bool dispatch(Status& why);
  void end(const Status& why);

  Reactor& reactor_;
  UniqueFd fd_;
  const bool is_unix_;
  Hooks hooks_;
  Reactor::Token token_ = 0;
  bool finishing_ = false;
  std::deque<Out> out_;
  std::size_t out_nbytes_ = 0;
  std::string in_;
  std::deque<UniqueFd> in_fds_;
};

}  // namespace pycomm
