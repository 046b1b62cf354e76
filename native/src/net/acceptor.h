// A listening socket served by a reactor: hands out connections whose other side has proved itself, and nothing else.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>

#include "base/fd.h"
#include "net/handshake.h"
#include "net/reactor.h"

namespace pycomm {

struct AcceptorConfig {
  std::string secret;
  Handshake::Accepts accepts;                           // which hellos are meant for this listener
  std::function<void(UniqueFd, const Hello&)> welcome;  // gets each proved connection, on the reactor thread
  std::size_t max_half_open = 64;
  double handshake_s = 5.0;
};

// How many connections were turned away, by reason.
struct AcceptorCounts {
  std::uint64_t denied = 0;   // wrong secret
  std::uint64_t garbage = 0;  // not our protocol, or hung up
  std::uint64_t expired = 0;  // too slow, or made room for others
};

// Reactor thread only, but for construction. Kept alive by the reactor between open() and close().
class Acceptor : public Reactor::Handler, public std::enable_shared_from_this<Acceptor> {
 public:
  Acceptor(Reactor& reactor, UniqueFd listener, AcceptorConfig config);
  ~Acceptor() override;
  bool open();
  // Closes the listener and every half-open connection.
  void close();
  const AcceptorCounts& counts() const noexcept { return counts_; }
  void on_ready(std::uint32_t events) noexcept override;

 private:
  class HalfOpen;
  void pause(double seconds);
  bool make_room();
  void finished(const std::shared_ptr<HalfOpen>& half_open, bool expired);

  Reactor& reactor_;
  UniqueFd listener_;
  AcceptorConfig config_;
  AcceptorCounts counts_;
  Reactor::Token token_ = 0;
  bool paused_ = false;
  std::uint64_t next_ = 0;
  struct Older {
    bool operator()(const std::shared_ptr<HalfOpen>& a, const std::shared_ptr<HalfOpen>& b) const noexcept;
  };
  std::set<std::shared_ptr<HalfOpen>, Older> half_open_;  // oldest first
};

}  // namespace pycomm
