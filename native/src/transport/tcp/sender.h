// One outgoing data connection and the frames that wait for it.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "base/fd.h"
#include "net/reactor.h"
#include "pycomm/status.h"
#include "pycomm/transport.h"

namespace pycomm::tcp {

class Sender : public Reactor::Handler, public std::enable_shared_from_this<Sender> {
 public:
  using Opened = std::function<void(Result<UniqueFd>)>;
  struct Hooks {
    std::function<void(Opened)> dial;           // reactor thread
    std::function<void(const Status&)> broken;  // reactor thread: the connection could not be opened, or ended
  };
  Sender(Reactor& reactor, Hooks hooks) : reactor_(reactor), hooks_(std::move(hooks)) {}

  // Any thread; never blocks. `owner` hears returned() when the memory is given back later, on the reactor thread.
  // After drop() frames vanish at once.
  void post(const FrameHeader& header, const void* payload, Lent& lent, Receiver& owner);
  // Any thread. Takes back the memory of all frames that `chosen` picks; half-sent ones go on from a copy.
  void cancel(const std::function<bool(const FrameHeader&)>& chosen);
  // Reactor thread. Closes the connection for good and returns all memory.
  void drop();
  bool is_open() const;
  bool drained() const;

  void on_ready(std::uint32_t events) noexcept override;

 private:
  struct Frame {
    FrameHeader header;
    const std::byte* payload;
    Lent* lent;            // null once returned
    Receiver* owner;       // null once nobody cares
    std::size_t sent = 0;  // bytes of header and payload
    std::unique_ptr<std::byte[]> copy{};

    std::size_t nbytes() const noexcept { return sizeof(FrameHeader) + header.nbytes; }
  };
  enum class State : std::uint8_t { unopened, opening, open, dropped };

  void opened(Result<UniqueFd> fd);
  void want_write(bool on) noexcept;
  static void give_back(Frame& frame) noexcept;
  int send_some();  // 0, or an errno
  int flush();

  Reactor& reactor_;
  const Hooks hooks_;
  mutable std::mutex mutex_;
  State state_ = State::unopened;
  UniqueFd fd_;
  Reactor::Token token_ = 0;
  bool wants_write_ = false;
  std::deque<Frame> queue_;
};

}  // namespace pycomm::tcp
