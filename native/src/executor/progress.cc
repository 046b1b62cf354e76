#include <algorithm>

#include "executor/matcher.h"
#include "pycomm/executor.h"

namespace pycomm {

Progress::Progress(Mailbox& mailbox, const std::vector<Transport*>& by_peer) : mailbox_(mailbox) {
  for (std::size_t peer = 0; peer < by_peer.size(); ++peer) {
    Transport* const transport = by_peer[peer];
    endpoints_.push_back(transport == nullptr ? nullptr : &transport->connect(static_cast<int>(peer)));
    if (transport != nullptr && std::find(transports_.begin(), transports_.end(), transport) == transports_.end())
      transports_.push_back(transport);
  }
}

bool Progress::drive() noexcept {
  // Whoever finds it busy leaves a note and looks again: either that look succeeds, or the driver sees the note when it
  // is through and rings. So no frame stays behind with everybody asleep.
  if (busy_.exchange(true, std::memory_order_seq_cst)) {
    wanted_.store(true, std::memory_order_seq_cst);
    if (busy_.exchange(true, std::memory_order_seq_cst)) return false;
  }
  bool moved = false;
  for (Transport* const transport : transports_) moved |= transport->poll(mailbox_);
  const bool flushed = mailbox_.matcher().flush([this](int peer, const FrameHeader& header, const void* payload,
                                                       Lent& lent) { to(peer).post_send(header, payload, lent); });
  busy_.store(false, std::memory_order_seq_cst);
  const bool noted = wanted_.load(std::memory_order_seq_cst) && wanted_.exchange(false, std::memory_order_seq_cst);
  // What flush() finished may be what another thread waits for.
  if (flushed || noted) mailbox_.bell().ring();
  return moved || flushed;
}

}  // namespace pycomm
