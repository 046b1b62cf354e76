// One incoming data connection: takes frames apart and puts payloads where the group's receiver wants them.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/fd.h"
#include "net/reactor.h"
#include "pycomm/transport.h"
#include "transport/tcp/tcp.h"

namespace pycomm::tcp {

// Reactor thread only.
class Inbound : public Reactor::Handler, public std::enable_shared_from_this<Inbound> {
 public:
  Inbound(Reactor& reactor, Network& network, int peer, UniqueFd fd);
  bool open();
  void close();
  int peer() const noexcept { return peer_; }
  // The group's receiver goes away: whatever is under way for it is forgotten.
  void forget(std::uint32_t group);
  // Goes on after a pause that ended, perhaps: some group has got its route.
  void resume();
  void on_ready(std::uint32_t events) noexcept override;

 private:
  enum class Mode : std::uint8_t { discard, copy, reduce, keep };
  enum class Step : std::uint8_t { on, wait, gone };

  void work();
  Step read_header();
  Step begin_frame();
  Step pause();
  Step read_payload();
  void take_ahead();
  void arrived(std::size_t nbytes);
  void finish_frame();
  Step ended(ssize_t n);
  Status check() const;
  std::byte* target();
  std::size_t ahead() const noexcept { return ahead_end_ - ahead_begin_; }

  Reactor& reactor_;
  Network& network_;
  const int peer_;
  UniqueFd fd_;
  bool paused_ = false;

  FrameHeader header_{};
  bool in_frame_ = false;
  Mode mode_ = Mode::discard;
  Receiver* receiver_ = nullptr;  // hears landed() when the frame is complete
  Landing landing_;
  bool parked_ = false;
  std::size_t received_ = 0;  // bytes of the payload
  std::size_t reduced_ = 0;   // of these, bytes already reduced
  std::vector<std::byte> kept_;

  std::size_t ahead_begin_ = 0;  // bytes read beyond the frame before
  std::size_t ahead_end_ = 0;
  std::vector<std::byte> ahead_bytes_;
  std::vector<std::byte> bounce_;  // payload on its way to a reduction, or to nowhere
};

}  // namespace pycomm::tcp
