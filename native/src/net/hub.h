// The state behind a Context. It lives on the reactor thread: every member is touched there only, unless it says
// otherwise; other threads post.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "net/acceptor.h"
#include "net/context.h"
#include "net/control.h"
#include "net/peer.h"
#include "net/reactor.h"
#include "net/regions.h"
#include "net/store.h"
#include "transport/tcp/tcp.h"

namespace pycomm {

class Context::Hub {
 public:
  explicit Hub(const ContextConfig& config) : config_(config) {}
  ~Hub();
  Hub(const Hub&) = delete;
  Hub& operator=(const Hub&) = delete;

  // The caller's thread.
  Status start();
  Status publish_and_learn(Deadline deadline);
  Status join(Deadline deadline);
  void goodbye();

  // Reactor thread.
  void add_group(std::uint32_t group, std::vector<int> members, GroupListener* listener, Receiver* receiver);
  void remove_group(std::uint32_t group);
  void send(int peer, const ControlMessage& message, std::shared_ptr<const UniqueFd> fd);

  const ContextConfig& config() const noexcept { return config_; }
  Reactor& reactor() noexcept { return *reactor_; }
  StoreClient& store() noexcept { return *store_; }
  RegionExchange& regions() noexcept { return *regions_; }
  tcp::Network& network() noexcept { return *network_; }
  // Fixed once join() has returned; any thread.
  bool same_host(int peer) const { return peer == config_.rank || (peers_.at(index(peer)).is_unix); }
  int process_of(int peer) const { return infos_.at(index(peer)).same_processes(me_) ? infos_[index(peer)].pid : 0; }

 private:
  enum class Stage : std::uint8_t { absent, up, leaving, gone };
  struct Peer {
    Stage stage = Stage::absent;
    bool is_unix = false;
    std::shared_ptr<ControlConnection> control;
    std::shared_ptr<ProcessWatch> process;
    std::uint32_t connections = 0;  // that it had opened to this rank when it said goodbye
    std::string suspicion;          // why a data connection ended while all else seems well
    std::string why;                // of a peer that is gone; empty when it left
  };
  struct Group {
    std::vector<int> members;
    GroupListener* listener;
  };
  struct Kept {
    int peer;
    ControlMessage message;
  };
  static std::size_t index(int rank) noexcept { return static_cast<std::size_t>(rank); }

  Status listen();
  std::shared_ptr<Acceptor> acceptor(UniqueFd listener, bool is_unix);
  bool accepts(const Hello& hello) const;
  void dial_control(int peer, Deadline deadline);
  void dial_data(int peer, int connection, std::function<void(Result<UniqueFd>)> done);
  void adopt_control(int peer, UniqueFd fd, bool is_unix);
  void give_up(Status why);

  void on_control(int peer, const ControlMessage& message, UniqueFd fd);
  void on_goodbye(int peer, const ControlMessage& message);
  void on_data_ended(int peer, const std::string& why);
  void on_process_ended(int peer);
  void look_whether_left(int peer);
  // The end of a peer: `why` is empty when it left.
  void gone(int peer, const std::string& why);
  static void tell(const Group& group, int peer, const std::string& why);

  const ContextConfig config_;
  PeerInfo me_;
  std::vector<PeerInfo> infos_;  // fixed before anything is dialled
  std::unique_ptr<StoreClient> store_;
  std::unique_ptr<Reactor> reactor_;
  std::shared_ptr<tcp::Network> network_;
  std::unique_ptr<RegionExchange> regions_;
  std::vector<std::shared_ptr<Acceptor>> acceptors_;
  std::vector<Peer> peers_;
  std::map<std::uint32_t, Group> groups_;
  std::set<std::uint32_t> retired_;
  std::map<std::uint32_t, std::deque<Kept>> kept_;  // for groups that are not registered yet
  std::size_t kept_count_ = 0;
  bool leaving_ = false;  // this rank has said goodbye

  std::mutex mutex_;
  std::condition_variable changed_;
  int absent_ = 0;                  // guarded by mutex_: peers without a control connection
  int present_ = 0;                 // guarded by mutex_: peers with one that is open
  std::optional<Status> hopeless_;  // guarded by mutex_: why joining cannot succeed
  std::once_flag left_;
};

}  // namespace pycomm
