// One communicator: its members, its memory, its two lanes, and the one Failure that ends every wait of it.
//
// The collective lane (lane.h) runs collectives in order; flat ones when all members share memory, schedules otherwise.
// The point-to-point lane progresses all sends and receives together; a courier thread drives it while asynchronous
// messages are under way and nobody waits.
//
// How a group ends: the first failure wins, is told to every member over the control connections and travels unchanged.
// A rank that closes the group says how many collectives it took part in; the others fail only when they need it for a
// later one. A disagreement between ranks is no failure: see disagreement.h.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "group/disagreement.h"
#include "group/lane.h"
#include "net/context.h"
#include "pycomm/executor.h"
#include "pycomm/flat.h"
#include "pycomm/mailbox.h"
#include "pycomm/plan.h"
#include "pycomm/point_to_point.h"
#include "pycomm/region.h"

namespace pycomm {

struct GroupConfig {
  std::uint32_t id = 0;
  std::string name;
  std::vector<int> members;  // world rank of each rank of the group
  int rank = 0;              // of this process in the group
  double timeout_s = 300;    // of every wait that names none
  bool use_flat = true;
  bool single_copy = true;  // flat.h
};

// A send or receive under way.
struct Message {
  Request request;
  int peer = kAnySource;
  const char* operation = "recv";
  Deadline deadline;
};

// Thread-safe.
class Group final : Context::GroupListener, MailboxListener {
 public:
  // Collective over the members; blocks until all are there or config.timeout_s has passed.
  static Result<std::shared_ptr<Group>> open(std::shared_ptr<Context> context, const GroupConfig& config);
  ~Group() override;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int rank() const noexcept { return config_.rank; }
  int size() const noexcept { return static_cast<int>(config_.members.size()); }
  const std::string& name() const noexcept { return config_.name; }
  double timeout_s() const noexcept { return config_.timeout_s; }
  std::uint64_t last_seq() const noexcept { return started_.load(std::memory_order_relaxed); }
  // Whether collectives without a plan can run: all members share memory.
  bool flat_ready() const noexcept { return flat_ready_; }
  // How this rank reaches each rank of the group: "shm", "tcp" or "self".
  const std::vector<std::string>& transports() const noexcept { return transport_names_; }

  // Blocking collectives: flat, and by plan (kept alive by the caller). Buffers as in flat.h and executor.h.
  Status run(const FlatCall& call, double timeout_s);
  Status run(const FlatCall& call, std::shared_ptr<const BoundPlan> plan, double timeout_s);
  // The same without waiting; the caller keeps memory and counts alive until the work is done. plan may be null.
  std::shared_ptr<Work> launch(const FlatCall& call, std::shared_ptr<const BoundPlan> plan, double timeout_s);
  // Waits for launched work; Code::deadline when `timeout_s` passes first (the work goes on).
  Status wait(const Work& work, double timeout_s);

  // Point to point. `courier` asks for progress without anyone waiting.
  Message send(int dst, int tag, const void* data, std::size_t nbytes, DType dtype, double timeout_s, bool courier);
  Message recv(int src, int tag, void* data, std::size_t nbytes, DType dtype, double timeout_s, bool courier);
  Status wait(const Message& message, double timeout_s);
  // Whether wait() would return at once. Memory is free only when the request itself is done, or after wait().
  bool done(const Message& message) noexcept;

  // Ends every wait of the group on every rank. Any thread, any number of times, never blocks.
  void abort(const std::string& reason);
  // Waits for work in flight (at most the group's timeout), says goodbye and releases everything. Twice is fine.
  void close();
  const Failure& failure() const noexcept { return failure_; }

 private:
  Group(std::shared_ptr<Context> context, GroupConfig config);
  Status set_up();
  Status perform(const FlatCall& call, const BoundPlan* plan, Deadline deadline);
  Status execute(const FlatCall& call, const BoundPlan& plan, std::uint64_t seq, Deadline deadline);
  Status departed(std::uint64_t seq) const;
  bool await(const Work& work, double timeout_s);
  Status await(const Message& message, double timeout_s);
  void wait_until_closed();
  void dissent(std::uint64_t seq);
  Status ask_around(std::uint64_t seq, Status status);
  bool peer_gone(int peer) const noexcept;
  Status end(Status status);
  void fail(const Status& cause, bool tell);
  void tell_all(const ControlMessage& message);
  void wake() noexcept { bell().ring_always(); }
  Doorbell& bell() const noexcept { return regions_.header(config_.rank).bell; }
  int rank_of(int world_rank) const noexcept;
  void finish_work();
  void start_courier();
  void serve_courier();
  ExecutorEnv env() noexcept { return {*mailbox_, *progress_, failure_, patience_}; }

  // Reactor thread.
  void on_peer_lost(int world_rank, const std::string& why) override;
  void on_control(int world_rank, const ControlMessage& message) override;
  // Whoever drives a transport.
  void on_disagreement(int peer, std::uint64_t seq, std::uint64_t ours, std::uint64_t theirs) noexcept override;
  void on_broken(const Status& cause) noexcept override;

  const std::shared_ptr<Context> context_;
  const GroupConfig config_;
  Failure failure_;
  Patience patience_;
  Regions regions_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<Transport*> by_peer_;
  std::unique_ptr<Mailbox> mailbox_;
  std::unique_ptr<Progress> progress_;
  std::unique_ptr<Flat> flat_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<PointToPoint> messages_;
  std::unique_ptr<Lane> lane_;
  bool flat_ready_ = false;                   // of what is asked after close() as well
  std::vector<std::string> transport_names_;  // by rank
  Disagreement disagreement_;

  std::atomic<std::uint64_t> started_{0};                    // collectives begun
  std::atomic<std::uint64_t> finished_{0};                   // collectives ended
  std::unique_ptr<std::atomic<std::int64_t>[]> left_after_;  // per rank: collectives it took part in, -1 while it stays
  std::unique_ptr<std::atomic<std::int64_t>[]> left_at_ns_;  // per rank: when its leaving was heard of

  std::mutex answers_mutex_;
  std::vector<std::int64_t> answers_;  // per rank: the operation it has come to, -1 while it has not said

  std::mutex courier_mutex_;
  std::condition_variable courier_wake_;
  std::thread courier_;
  bool courier_stop_ = false;
  std::uint64_t courier_orders_ = 0;

  // Calls that use the parts above count themselves as visits; close() waits for them before it takes the parts down.
  class Visit;
  std::atomic<int> visits_{0};
  std::atomic<bool> closing_{false};
  std::mutex close_mutex_;
  bool registered_ = false;
  bool closed_ = false;
};

// 64-bit digest of what ranks must agree on (all of a Descriptor but the factor). Never 0.
std::uint64_t agreement_of(const Descriptor& desc) noexcept;

}  // namespace pycomm
