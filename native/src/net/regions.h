// How the ranks of a group on one host come to share memory, and know that they do.
//
//   owner                                     mapper (every other rank of the group on this host)
//     makes a memfd, writes a nonce into it
//     offer: the descriptor             ->    maps it, reads the nonce, xors a number of its own into proof_mapper
//                                       <-    echo: the nonce as read from memory, the number
//     nonce right from everybody, and proof_mapper is the xor of all numbers: both ways are proved
//     confirm                           ->    (to all)
//
// A rank is done when all owners have confirmed: then everybody has mapped everything.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "net/control.h"
#include "net/reactor.h"
#include "pycomm/region.h"
#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

// Memory of a region that is taken when it is made; what lies behind (frame rings, mostly) is taken when first touched.
constexpr std::size_t kReservedRegionBytes = std::size_t{16} << 20;

class RegionExchange {
 public:
  // Sends to a peer of this host, on the reactor thread.
  using Send = std::function<void(int peer, const ControlMessage&, std::shared_ptr<const UniqueFd>)>;
  RegionExchange(Reactor& reactor, int rank, Send send);
  ~RegionExchange();

  // Blocks. `reachable[i]`: member i is another rank of this host. Codes: resource (no memory), deadline and peer_lost
  // (naming group ranks), protocol (sizes differ, memory not shared), what a member refused with, or the failure.
  Result<Regions> share(std::uint32_t group, const std::vector<int>& members, const std::vector<bool>& reachable,
                        std::size_t nbytes, Deadline deadline, const Failure& failure);

  // Reactor thread.
  void on_message(int peer, const ControlMessage& message, UniqueFd fd);
  void on_lost(int peer, const std::string& why);

 private:
  class Round;
  struct Early {
    int peer;
    ControlMessage message;
    UniqueFd fd;
  };
  Reactor& reactor_;
  const int rank_;
  const Send send_;
  // Reactor thread only.
  std::map<std::uint32_t, std::shared_ptr<Round>> rounds_;
  std::map<std::uint32_t, std::vector<Early>> early_;  // offers of members that are faster than this rank
  std::map<int, std::string> lost_;
  std::set<std::uint32_t> over_;
};

// Unmaps all of it.
void unmap(Regions& regions) noexcept;

}  // namespace pycomm
