// One per process and job: knows the peers, keeps a control connection to each, notices when one is gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "net/control.h"
#include "net/regions.h"
#include "net/store.h"
#include "pycomm/region.h"
#include "pycomm/status.h"
#include "pycomm/transport.h"
#include "pycomm/wait.h"

namespace pycomm {

struct ContextConfig {
  int rank = 0;
  int size = 1;
  std::string store_host;
  std::uint16_t store_port = 0;
  std::string secret;     // the same on every rank of the job
  std::string interface;  // name or address of the interface to listen on; "" takes the one that leads to the store
  int family = 0;         // 4 or 6; 0 takes either
  double timeout_s = 300;
  bool allow_shared_memory = true;  // false: peers on this host are treated like peers on any other
  int tcp_connections = 2;          // per peer and direction, opened when first needed
  std::string name = "world";       // contexts of one job that share a store differ in it
};

// Thread-safe. Its network thread never blocks and never calls anything but the listeners and receivers of groups.
class Context : public std::enable_shared_from_this<Context> {
 public:
  // Hears what concerns one group. Called on the network thread; must not block.
  class GroupListener {
   public:
    virtual ~GroupListener() = default;
    // `why` completes "rank 3 was lost: ...". At most once per peer.
    virtual void on_peer_lost(int world_rank, const std::string& why) = 0;
    // The peer said goodbye, and all it had sent before has arrived.
    virtual void on_peer_left(int world_rank) { on_peer_lost(world_rank, "it has left the job"); }
    virtual void on_control(int world_rank, const ControlMessage& message) = 0;
  };

  // Blocks until every pair has its control connection. Codes: deadline (naming the ranks that miss), auth (wrong
  // secret, at once), peer_lost, unavailable, resource, usage.
  static Result<std::shared_ptr<Context>> connect(const ContextConfig& config);
  // Says goodbye unless done before. In a forked child it does nothing.
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  int rank() const noexcept;
  int size() const noexcept;
  StoreClient& store();
  // Whether the peer is on this host, by the proof of a unix socket between both. True for this rank.
  bool same_host(int peer) const;
  // The process of the peer (0 when it cannot be known), for messages.
  int process_of(int peer) const;

  // Collective over the members on this host: see regions.h. Every member calls it with the same nbytes. Blocks.
  Result<Regions> share_regions(std::uint32_t group, const std::vector<int>& members, std::size_t nbytes,
                                Deadline deadline, const Failure& failure);
  void release_regions(Regions& regions) noexcept { unmap(regions); }

  // What arrived for the group before is delivered now; peers that are gone already are reported. `members` are world
  // ranks, at the place of their rank in the group. Without a receiver the group gets no frames over TCP.
  void register_group(std::uint32_t group, std::vector<int> members, GroupListener* listener,
                      Receiver* receiver = nullptr);
  // On return neither listener nor receiver is called, now or later. Not from within their calls on another thread's
  // lock: it waits for the network thread.
  void unregister_group(std::uint32_t group);

  // Any thread; queues and never blocks. Messages to one peer arrive in order, or not at all when it is gone.
  void send_control(int peer, const ControlMessage& message);

  // The group's way over TCP. Its destruction ends the group's frames. Outlived by the context.
  std::unique_ptr<Transport> tcp_transport(std::uint32_t group, const std::vector<int>& members, Receiver& receiver);

  // Leaves the job cleanly: sends what is queued, tells every peer, ends the network thread. Blocks for a second or two
  // at most. Twice is fine; afterwards nothing is sent or heard any more.
  void goodbye();

 private:
  class Hub;
  explicit Context(std::shared_ptr<Hub> hub) : hub_(std::move(hub)) {}
  std::shared_ptr<Hub> hub_;
};

}  // namespace pycomm
