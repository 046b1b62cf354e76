// Frames over TCP, driven by the reactor thread.
//
// A rank opens its own connections to a peer when it first sends to it, and sends on those only; what it receives comes
// over connections that the peer opened. So both may begin at once without agreeing on anything, an idle pair costs
// nothing, and closing never destroys data under way (the closing side has nothing unread). Frames of one channel
// share one connection, which keeps them in order; channels spread over all connections.
//
//   rank 0                                  rank 1
//   Sender[1][0..k) ===================>  Inbound       k connections opened by 0
//   Inbound         <===================  Sender[0][0..k)      k opened by 1
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/fd.h"
#include "net/reactor.h"
#include "pycomm/status.h"
#include "pycomm/transport.h"

namespace pycomm::tcp {

class Sender;
class Inbound;

// What the network needs from the context. All run on the reactor thread.
struct Hooks {
  // Opens and proves connection `index` to `peer`; calls back once.
  std::function<void(int peer, int index, std::function<void(Result<UniqueFd>)>)> dial;
  // The data connections with `peer` are of no more use: broken, or the peer sent what no peer may send.
  std::function<void(int peer, const Status& why)> broken;
  // A connection with `peer` was closed between two frames; nothing is wrong if the peer has left.
  std::function<void(int peer)> ended;
};

// A frame for a group that this rank has not registered yet: a faster member talks already.
struct KeptFrame {
  int peer;
  FrameHeader header;
  std::vector<std::byte> payload;
};

constexpr std::size_t kMaxKeptBytes = std::size_t{16} << 20;  // then the connections in question wait

// All data connections of one context. Reactor thread only where nothing else is said.
class Network : public std::enable_shared_from_this<Network> {
 public:
  Network(Reactor& reactor, int size, int connections, Hooks hooks);
  ~Network();
  Network(const Network&) = delete;
  Network& operator=(const Network&) = delete;

  // Any thread. The way of one group; `members` are world ranks. Its destruction takes the route down.
  std::unique_ptr<Transport> transport(std::uint32_t group, const std::vector<int>& members, Receiver& receiver);

  // Delivers what was kept for the group. A second route for a group replaces the first.
  void open_route(std::uint32_t group, const std::vector<int>& members, Receiver& receiver);
  // On return no call of the group's receiver runs or will run. Its late frames are read and forgotten.
  void close_route(std::uint32_t group);
  void adopt(int peer, UniqueFd fd);
  // Drops all connections with the peer; memory lent to frames for it is returned.
  void drop(int peer);
  // Only those that this rank opened.
  void drop_senders(int peer);
  void close();

  // Connections to the peer that this rank opened.
  std::uint32_t opened_to(int peer) const;
  // How many of the peer's connections have ended.
  std::uint32_t ended_from(int peer) const { return ended_from_[static_cast<std::size_t>(peer)]; }
  // Nothing waits to be sent.
  bool drained() const;

 private:
  friend class Inbound;
  struct Route {
    std::vector<int> members;
    Receiver* receiver;
  };
  const Route* route(std::uint32_t group) const;
  bool retired(std::uint32_t group) const { return retired_.count(group) != 0; }
  bool may_keep(std::size_t nbytes) const { return nbytes <= kMaxKeptBytes - kept_nbytes_; }
  void reserve(std::size_t nbytes) { kept_nbytes_ += nbytes; }
  void release(std::size_t nbytes) { kept_nbytes_ -= nbytes; }
  void keep(KeptFrame frame);
  void deliver(const Route& route, KeptFrame& frame);
  void ended(const std::shared_ptr<Inbound>& inbound, const Status& why);

  Reactor& reactor_;
  const Hooks hooks_;
  std::vector<std::vector<std::shared_ptr<Sender>>> senders_;    // [peer][index]; fixed after construction
  std::vector<std::vector<std::shared_ptr<Inbound>>> inbounds_;  // [peer]
  std::vector<std::uint32_t> ended_from_;
  std::unordered_map<std::uint32_t, Route> routes_;
  std::unordered_set<std::uint32_t> retired_;
  std::unordered_map<std::uint32_t, std::deque<KeptFrame>> kept_;
  std::size_t kept_nbytes_ = 0;
};

}  // namespace pycomm::tcp
