// Runs bound plans and point-to-point messages over a group's transports.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "pycomm/mailbox.h"
#include "pycomm/plan.h"
#include "pycomm/status.h"
#include "pycomm/transport.h"
#include "pycomm/types.h"
#include "pycomm/wait.h"

namespace pycomm {

// Polls the transports for all lanes of a group: whoever waits drives, one thread at a time, the others sleep on the
// doorbell and are rung by what lands. Thread-safe.
class Progress {
 public:
  // `by_peer[r]` is the transport to rank r (null for this rank itself). All outlive this object.
  Progress(Mailbox& mailbox, const std::vector<Transport*>& by_peer);
  // Moves what can be moved without waiting; true when anything moved. Does nothing while another thread drives.
  bool drive() noexcept;
  Endpoint& to(int peer) noexcept { return *endpoints_[static_cast<std::size_t>(peer)]; }

 private:
  Mailbox& mailbox_;
  std::vector<Transport*> transports_;  // each once
  std::vector<Endpoint*> endpoints_;    // by peer
  std::atomic<bool> busy_{false};
  std::atomic<bool> wanted_{false};  // somebody found it busy: ring when free
};

// What both lanes work with. Everything referred to outlives them.
struct ExecutorEnv {
  Mailbox& mailbox;
  Progress& progress;
  const Failure& failure;
  Patience patience;
};

// One operation of the collective lane.
struct ExecuteCall {
  Descriptor desc{};            // dtype, op, factor; root for messages
  std::uint64_t agreement = 0;  // hash of desc: travels in every frame
  std::uint64_t seq = 0;        // grows with every collective of the group
  const void* input = nullptr;  // in place: the one buffer, in both fields
  void* output = nullptr;
  Deadline deadline;
};

// The collective lane. One thread at a time.
class Executor {
 public:
  explicit Executor(const ExecutorEnv& env);
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // Runs one rank's program to its end; blocks until then. When it returns, however it ends, nothing reads or writes
  // the caller's memory any more. Codes: ok; mismatch (of this operation only); deadline (names whom it waited for; the
  // caller then fails the group); the group's failure; unsupported (no such reduction); usage (plan of another dtype
  // size or group). Allocates only while its buffers grow.
  Status execute(const BoundPlan& plan, const ExecuteCall& call);

 private:
  class Run;
  struct Workspace;
  ExecutorEnv env_;
  std::unique_ptr<Workspace> work_;
};

}  // namespace pycomm
