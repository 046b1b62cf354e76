#include "pycomm/executor.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <set>
#include <string>
#include <utility>

#include "executor/inbox.h"
#include "pycomm/reduce.h"

namespace pycomm {
namespace {

// How long an operation that found a disagreement waits to be told the other side's call.
constexpr double kGraceSeconds = 1.0;

// Uninitialised memory that only grows.
class Buffer {
 public:
  // Null when there is not so much memory.
  std::byte* need(std::size_t nbytes) noexcept {
    if (nbytes > capacity_ || memory_ == nullptr) {
      memory_.reset();
      const std::size_t room = std::max((nbytes + 63) & ~std::size_t{63}, std::size_t{64});
      memory_.reset(static_cast<std::byte*>(::operator new (room, std::align_val_t{64}, std::nothrow)));
      capacity_ = memory_ == nullptr ? 0 : room;
    }
    return memory_.get();
  }

 private:
  struct Free {
    void operator()(std::byte* memory) const noexcept { ::operator delete (memory, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte, Free> memory_;
  std::size_t capacity_ = 0;
};

// What a run knows of one step beyond the plan.
struct Progressed {
  std::uint32_t started = 0;  // segments posted (send) or allowed (receive): a prefix
  std::uint32_t done = 0;     // sends and receives: a prefix
};

std::string listed(const std::set<int>& ranks) {
  std::string text;
  for (const int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return (ranks.size() == 1 ? "rank " : "ranks ") + text;
}

}  // namespace

struct Executor::Workspace {
  std::vector<std::uint32_t> waits_for;  // per node: what is left of BoundPlan::waits_for
  std::vector<std::uint8_t> ready;       // per node
  std::vector<Progressed> progressed;    // per step
  std::vector<std::uint32_t> queue;      // nodes to start, [next_queued, end)
  std::size_t next_queued = 0;
  std::vector<std::uint32_t> sending;  // send steps with segments not copied out
  std::unique_ptr<Lent[]> lent;        // per send
  std::size_t lent_room = 0;
  std::vector<Grown> grown;
  Inbox inbox;
  Buffer scratch;
  Buffer scaled;
};

class Executor::Run {
 public:
  Run(const ExecutorEnv& env, Workspace& work, const BoundPlan& plan, const ExecuteCall& call)
      : env_(env), work_(work), plan_(plan), call_(call), remaining_(plan.nodes()) {}

  Status run() {
    PYCOMM_TRY(prepare());
    start_receives();
    env_.mailbox.open(work_.inbox);
    // Before looking at what others sent: a rank that finds a disagreement at once has still shown its own side.
    start_queued();
    const auto ready = [&] { return step(); };
    const Waited waited = wait_until(ready, env_.mailbox.bell(), env_.failure, call_.deadline, env_.patience);
    Status status = waited == Waited::failed ? env_.failure.cause() : Status();
    if (waited == Waited::ready && work_.inbox.stopped.load(std::memory_order_acquire)) status = verdict();
    const bool complete = remaining_ == 0 && status.ok();
    if (!complete) take_back_sends();
    env_.mailbox.close(work_.inbox);
    if (complete) {
      finish();
      return {};
    }
    return waited == Waited::deadline ? late() : status;
  }

 private:
  Status prepare() {
    const MailboxConfig& group = env_.mailbox.config();
    const DType dtype = call_.desc.dtype;
    if (plan_.rank != group.rank || plan_.nranks != group.nranks)
      return {Code::usage, "plan for rank " + std::to_string(plan_.rank) + " of " + std::to_string(plan_.nranks) +
                               " given to rank " + std::to_string(group.rank) + " of " + std::to_string(group.nranks)};
    if (plan_.itemsize != itemsize(dtype))
      return {Code::usage, "plan bound to elements of " + std::to_string(plan_.itemsize) +
                               " bytes run with a dtype of " + std::to_string(itemsize(dtype))};
    reduce_ = reduce_fn(dtype, call_.desc.op);
    const auto reduces = [](const Step& s) { return s.kind == OpKind::reduce || s.kind == OpKind::recv_reduce; };
    if (reduce_ == nullptr && std::any_of(plan_.steps.begin(), plan_.steps.end(), reduces))
      return {Code::unsupported, "reduction " + std::to_string(static_cast<int>(call_.desc.op)) +
                                     " is not defined for dtype " + std::to_string(static_cast<int>(dtype))};
    PYCOMM_TRY(bind_memory());
    prepare_tables();
    prepare_inbox();
    return {};
  }

  Status bind_memory() {
    const std::size_t scratch_nbytes = plan_.space_nbytes[2];
    base_[1] = static_cast<std::byte*>(call_.output);
    // In place the input is the output; otherwise INPUT is only read, which binding has checked.
    base_[0] = plan_.in_place ? base_[1] : static_cast<std::byte*>(const_cast<void*>(call_.input));
    base_[2] = work_.scratch.need(scratch_nbytes);
    if (base_[2] == nullptr)
      return {Code::resource, "no memory for " + std::to_string(scratch_nbytes) + " bytes of scratch"};
    if (call_.desc.op != ReduceOp::premul_sum) return {};
    const std::size_t nbytes = plan_.space_nbytes[0];
    std::byte* const scaled = plan_.in_place ? base_[0] : work_.scaled.need(nbytes);
    if (scaled == nullptr)
      return {Code::resource, "no memory for a scaled copy of " + std::to_string(nbytes) + " bytes"};
    scale(call_.desc.dtype, scaled, base_[0], nbytes / plan_.itemsize, call_.desc.factor);
    base_[0] = scaled;
    return {};
  }

  void prepare_tables() {
    work_.waits_for = plan_.waits_for;
    work_.ready.assign(plan_.nodes(), 0);
    work_.progressed.assign(plan_.steps.size(), {});
    work_.queue.clear();
    work_.queue.reserve(plan_.nodes());
    work_.next_queued = 0;
    work_.sending.clear();
    work_.sending.reserve(plan_.sends.size());
    if (work_.lent_room < plan_.sends.size()) {
      work_.lent = std::make_unique<Lent[]>(plan_.sends.size());  // zeroes, to which every run returns them
      work_.lent_room = plan_.sends.size();
    }
  }

  void prepare_inbox() {
    Inbox& inbox = work_.inbox;
    inbox.plan = &plan_;
    inbox.seq = call_.seq;
    inbox.agreement = call_.agreement;
    inbox.reduce = reduce_;
    inbox.itemsize = plan_.itemsize;
    inbox.grown.clear();
    inbox.any_grown.store(false, std::memory_order_relaxed);
    inbox.stopped.store(false, std::memory_order_relaxed);
    inbox.disagreeing_peer = -1;
    inbox.grown.reserve(plan_.receives.size());
    if (inbox.slots.size() < plan_.receives.size()) inbox.slots.resize(plan_.receives.size());
    for (std::size_t i = 0; i < plan_.receives.size(); ++i) {
      const Step& step = plan_.steps[plan_.receives[i]];
      Slot& slot = inbox.slots[i];
      slot.peer = step.peer;
      slot.dst = at(step.dst);
      slot.operand = step.kind == OpKind::recv_reduce && step.nbytes != 0 ? at(step.src) : nullptr;
      slot.total = step.nbytes;
      slot.allowed = slot.arrived = slot.landed = 0;
      slot.seen = slot.grown = slot.draining = false;
    }
  }

  // Receives that nothing stands in the way of may land from the first moment; the rest is queued.
  void start_receives() {
    for (std::uint32_t node = 0; node < plan_.nodes(); ++node) {
      if (plan_.waits_for[node] != 0) continue;
      const std::uint32_t index = plan_.node_step[node];
      const Step& step = plan_.steps[index];
      if (step.kind == OpKind::recv || step.kind == OpKind::recv_reduce) {
        if (const std::uint64_t upto = extend(index, node)) work_.inbox.slots[step.slot].allowed = upto;
      } else {
        work_.queue.push_back(node);
      }
    }
  }

  // One round of progress; true when the run is over, well or not.
  bool step() {
    for (bool again = true; again;) {
      again = env_.progress.drive();
      if (work_.inbox.stopped.load(std::memory_order_acquire)) return true;
      again |= collect();
      again |= start_queued();
      if (remaining_ == 0) return true;
      if (env_.failure.failed()) return false;
    }
    return false;
  }

  // Notes what the transports have done since the last round.
  bool collect() {
    bool any = false;
    while (work_.inbox.any_grown.load(std::memory_order_acquire)) {
      any = true;
      env_.mailbox.take_grown(work_.inbox, work_.grown);
      for (const Grown& grown : work_.grown) {
        received(grown);
        if (grown.has_kept) env_.mailbox.drain(work_.inbox, grown.slot);
      }
    }
    for (std::size_t i = 0; i < work_.sending.size();) {
      const std::uint32_t index = work_.sending[i];
      any |= copied_out(index);
      if (work_.progressed[index].done == work_.progressed[index].started) {
        work_.sending[i] = work_.sending.back();
        work_.sending.pop_back();
      } else {
        ++i;
      }
    }
    return any;
  }

  bool start_queued() {
    const bool any = work_.next_queued < work_.queue.size();
    while (work_.next_queued < work_.queue.size()) start(work_.queue[work_.next_queued++]);
    return any;
  }

  void start(std::uint32_t node) {
    const std::uint32_t index = plan_.node_step[node];
    const Step& step = plan_.steps[index];
    const std::uint64_t begin = plan_.node_begin(node);
    const std::uint64_t nbytes = plan_.node_end(node) - begin;
    switch (step.kind) {
      case OpKind::copy:
        copy_bytes(at(step.dst) + begin, at(step.src) + begin, nbytes);
        return done(node);
      case OpKind::reduce:
        if (nbytes != 0)
          reduce_(at(step.dst) + begin, at(step.dst) + begin, at(step.src) + begin, nbytes / plan_.itemsize);
        return done(node);
      case OpKind::send:
        return send(index, node);
      case OpKind::recv:
      case OpKind::recv_reduce:
        // Only the first segments that are free may land: the rest of the message comes behind them anyway.
        if (const std::uint64_t upto = extend(index, node)) env_.mailbox.allow(work_.inbox, step.slot, upto);
        return;
    }
  }

  // Marks a segment of a message as free to start. When that lengthens the prefix that is free, returns its length.
  std::uint64_t extend(std::uint32_t index, std::uint32_t node) {
    const Step& step = plan_.steps[index];
    Progressed& progressed = work_.progressed[index];
    work_.ready[node] = 1;
    const std::uint32_t before = progressed.started;
    while (progressed.started < step.nodes && work_.ready[step.first_node + progressed.started] != 0)
      ++progressed.started;
    return progressed.started == before ? 0 : plan_.node_end(step.first_node + progressed.started - 1);
  }

  void send(std::uint32_t index, std::uint32_t node) {
    const Step& step = plan_.steps[index];
    Progressed& progressed = work_.progressed[index];
    const std::uint32_t before = progressed.started;
    extend(index, node);
    if (progressed.started == before) return;
    const bool listed = before != progressed.done;
    Lent& lent = work_.lent[step.slot];
    lent.fetch_add(progressed.started - before, std::memory_order_relaxed);
    FrameHeader header{};
    header.magic = kFrameMagic;
    header.type = FrameType::schedule;
    header.dtype = call_.desc.dtype;
    header.channel = step.channel;
    header.group = env_.mailbox.config().group;
    header.src = static_cast<std::uint32_t>(plan_.rank);
    header.seq = call_.seq;
    header.agreement = call_.agreement;
    header.total = step.nbytes;
    header.tag = step.message;
    for (std::uint32_t i = before; i < progressed.started; ++i) {
      header.offset = plan_.node_begin(step.first_node + i);
      header.nbytes = plan_.node_end(step.first_node + i) - header.offset;
      const std::byte* const payload = header.nbytes == 0 ? nullptr : at(step.src) + header.offset;
      env_.progress.to(step.peer).post_send(header, payload, lent);
    }
    copied_out(index);
    if (!listed && progressed.done != progressed.started) work_.sending.push_back(index);
  }

  // Segments of a message are copied out in order, so the number still lent says which.
  bool copied_out(std::uint32_t index) {
    const Step& step = plan_.steps[index];
    Progressed& progressed = work_.progressed[index];
    const std::uint32_t upto = progressed.started - work_.lent[step.slot].load(std::memory_order_acquire);
    const bool any = progressed.done < upto;
    while (progressed.done < upto) done(step.first_node + progressed.done++);
    return any;
  }

  void received(const Grown& grown) {
    const std::uint32_t index = plan_.receives[grown.slot];
    const Step& step = plan_.steps[index];
    Progressed& progressed = work_.progressed[index];
    if (!grown.seen) return;
    while (progressed.done < step.nodes && plan_.node_end(step.first_node + progressed.done) <= grown.landed)
      done(step.first_node + progressed.done++);
  }

  void done(std::uint32_t node) {
    --remaining_;
    for (std::uint32_t i = plan_.first_next[node]; i < plan_.first_next[node + 1]; ++i)
      if (--work_.waits_for[plan_.next[i]] == 0) work_.queue.push_back(plan_.next[i]);
  }

  void take_back_sends() {
    std::set<int> peers;
    for (const std::uint32_t index : work_.sending) peers.insert(plan_.steps[index].peer);
    for (const int peer : peers) env_.progress.to(peer).cancel(FrameType::schedule, call_.seq);
  }

  // The operation was stopped: why. A disagreement is worth a short wait for the message that shows both sides.
  Status verdict() {
    Status status = env_.mailbox.verdict(work_.inbox, false);
    if (!status.ok()) return status;
    const std::int64_t grace = Deadline::after(kGraceSeconds).at_ns;
    const auto told = [&] {
      env_.progress.drive();
      status = env_.mailbox.verdict(work_.inbox, false);
      return !status.ok();
    };
    const Waited waited = wait_until(told, env_.mailbox.bell(), env_.failure,
                                     Deadline{std::min(grace, call_.deadline.at_ns)}, env_.patience);
    if (waited == Waited::failed) return env_.failure.cause();
    return waited == Waited::ready ? status : env_.mailbox.verdict(work_.inbox, true);
  }

  Status late() const {
    std::set<int> silent;  // nothing has come from them in this operation
    std::set<int> late;
    std::set<int> heard;
    for (std::size_t i = 0; i < plan_.receives.size(); ++i) {
      const Slot& slot = work_.inbox.slots[i];
      if (slot.arrived != 0 || slot.seen) heard.insert(slot.peer);
      if (!slot.seen || slot.landed < slot.total) late.insert(slot.peer);
    }
    std::set_difference(late.begin(), late.end(), heard.begin(), heard.end(), std::inserter(silent, silent.end()));
    const std::string where = "operation " + std::to_string(call_.seq) + " at rank " + std::to_string(plan_.rank);
    if (late.empty()) {
      std::set<int> full;
      for (const std::uint32_t index : work_.sending) full.insert(plan_.steps[index].peer);
      return {Code::deadline,
              where + ": " + listed(full) + " did not take its messages before the deadline",
              {full.begin(), full.end()}};
    }
    const std::set<int>& named = silent.empty() ? late : silent;
    return {Code::deadline,
            where + ": " + std::to_string(remaining_) + " of " + std::to_string(plan_.nodes()) +
                " segments left at the deadline, waiting for " + listed(named) +
                (silent.empty() ? ", which stopped half-way" : ", from which nothing came"),
            {named.begin(), named.end()}};
  }

  void finish() {
    if (call_.desc.op != ReduceOp::avg || plan_.result_nbytes == 0 || plan_.nranks == 1) return;
    std::byte* const result = at(plan_.result);
    divide(call_.desc.dtype, result, result, plan_.result_nbytes / plan_.itemsize, plan_.nranks);
  }

  std::byte* at(const Place& place) const noexcept {
    std::byte* const base = base_[static_cast<std::size_t>(place.space)];
    return base == nullptr ? nullptr : base + place.offset;
  }

  const ExecutorEnv& env_;
  Workspace& work_;
  const BoundPlan& plan_;
  const ExecuteCall& call_;
  std::size_t remaining_;
  ReduceFn reduce_ = nullptr;
  std::byte* base_[3] = {};
};

Executor::Executor(const ExecutorEnv& env) : env_(env), work_(std::make_unique<Workspace>()) {}

Executor::~Executor() = default;

Status Executor::execute(const BoundPlan& plan, const ExecuteCall& call) { return Run(env_, *work_, plan, call).run(); }

}  // namespace pycomm
