// What a rank publishes of itself in the store, and how a peer of this host is watched.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/socket.h"
#include "net/reactor.h"
#include "pycomm/status.h"

namespace pycomm {

struct PeerInfo {
  std::string boot_id;          // same value: same running kernel
  std::uint64_t pid_space = 0;  // same value under the same kernel: process numbers mean the same
  std::int32_t pid = 0;
  std::uint64_t instance = 0;  // drawn anew by every context
  std::string unix_name;       // abstract socket; empty when memory is not to be shared
  Address tcp;

  std::string encode() const;
  static Result<PeerInfo> decode(const std::string& text);
  // Of this process; addresses are left to the caller.
  static PeerInfo of_this_process();
  bool same_kernel(const PeerInfo& other) const { return !boot_id.empty() && boot_id == other.boot_id; }
  bool same_processes(const PeerInfo& other) const {
    return same_kernel(other) && pid_space != 0 && pid_space == other.pid_space;
  }
};

// Calls `ended` on the reactor thread when process `pid` ends, once. Needed besides the sockets, because a child that
// the process forked may keep those open. Null when the kernel cannot watch it.
class ProcessWatch : public Reactor::Handler {
 public:
  static std::shared_ptr<ProcessWatch> start(Reactor& reactor, int pid, std::function<void()> ended);
  ProcessWatch(Reactor& reactor, UniqueFd fd, std::function<void()> ended);
  ~ProcessWatch() override;
  void close();
  void on_ready(std::uint32_t events) noexcept override;

 private:
  Reactor& reactor_;
  UniqueFd fd_;
  std::function<void()> ended_;
};

}  // namespace pycomm
