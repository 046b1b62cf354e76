#include "group/group.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "transport/shm/shm.h"

namespace pycomm {
namespace {

// Rings follow the flat area in each region.
std::size_t rings_offset(int nranks) noexcept { return sizeof(RegionHeader) + Flat::area_size(nranks); }

constexpr double kGoneGrace_s = 0.5;   // what a rank sent before it left is still taken
constexpr double kAskAround_s = 0.25;  // how long members may take to say where they are
constexpr double kForever_s = 1e10;    // for what is certain to end

// Waiting spins only when every rank of this host can have a core of its own.
Patience patience_for(int spare_cores) noexcept { return spare_cores >= 0 ? Patience{} : Patience{0, 200}; }

std::uint64_t mix(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

ControlMessage control(std::uint32_t group, ControlMessage::Kind kind, std::uint64_t seq) {
  ControlMessage message;
  message.group = group;
  message.kind = kind;
  message.seq = seq;
  return message;
}

const Status& closed_status() {
  static const Status kClosed(Code::usage, "the communicator is closed; make a new one");
  return kClosed;
}

}  // namespace

class Group::Visit {
 public:
  explicit Visit(Group& group) : group_(group) {
    group_.visits_.fetch_add(1, std::memory_order_seq_cst);
    welcome_ = !group_.closing_.load(std::memory_order_seq_cst);
  }
  ~Visit() { group_.visits_.fetch_sub(1, std::memory_order_release); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;
  explicit operator bool() const noexcept { return welcome_; }

 private:
  Group& group_;
  bool welcome_;
};

std::uint64_t agreement_of(const Descriptor& desc) noexcept {
  constexpr std::size_t kAgreed = offsetof(Descriptor, factor);
  static_assert(kAgreed % sizeof(std::uint64_t) == 0);
  std::uint64_t words[kAgreed / sizeof(std::uint64_t)];
  std::memcpy(words, &desc, kAgreed);
  std::uint64_t hash = 0x9e3779b97f4a7c15ULL;
  for (const std::uint64_t word : words) hash = mix(hash + word + 0x9e3779b97f4a7c15ULL);
  return hash == 0 ? 1 : hash;
}

Result<std::shared_ptr<Group>> Group::open(std::shared_ptr<Context> context, const GroupConfig& config) {
  const std::shared_ptr<Group> group(new Group(std::move(context), config));
  if (Status status = group->set_up(); !status.ok()) {
    group->fail(status, true);
    group->close();
    return status;
  }
  return group;
}

Group::Group(std::shared_ptr<Context> context, GroupConfig config)
    : context_(std::move(context)),
      config_(std::move(config)),
      disagreement_(config_.rank),
      left_after_(new std::atomic<std::int64_t>[config_.members.size()]),
      left_at_ns_(new std::atomic<std::int64_t>[config_.members.size()]) {
  for (int r = 0; r < size(); ++r) {
    left_after_[static_cast<std::size_t>(r)].store(-1);
    left_at_ns_[static_cast<std::size_t>(r)].store(INT64_MAX);
  }
}

Group::~Group() { close(); }

Status Group::set_up() {
  const int n = size();
  const std::size_t nbytes = rings_offset(n) + shm_area_size(n);
  Result<Regions> regions =
      context_->share_regions(config_.id, config_.members, nbytes, Deadline::after(config_.timeout_s), failure_);
  if (!regions.ok()) return regions.status();
  regions_ = std::move(*regions);

  const auto here =
      std::count_if(regions_.base.begin(), regions_.base.end(), [](const auto* p) { return p != nullptr; });
  const int spare_cores = static_cast<int>(std::thread::hardware_concurrency()) - static_cast<int>(here);
  patience_ = patience_for(spare_cores);

  auto& listener = static_cast<MailboxListener&>(*this);
  mailbox_ = std::make_unique<Mailbox>(MailboxConfig{config_.rank, n, config_.id}, bell(), listener);
  transports_.push_back(make_shm_transport(regions_, rings_offset(n), config_.rank));
  by_peer_.assign(static_cast<std::size_t>(n), transports_.front().get());
  by_peer_[static_cast<std::size_t>(config_.rank)] = nullptr;
  if (!regions_.shared_by_all()) {
    transports_.push_back(context_->tcp_transport(config_.id, config_.members, *mailbox_));
    for (std::size_t r = 0; r < by_peer_.size(); ++r)
      if (regions_.base[r] == nullptr) by_peer_[r] = transports_.back().get();
  }
  progress_ = std::make_unique<Progress>(*mailbox_, by_peer_);
  executor_ = std::make_unique<Executor>(env());
  messages_ = std::make_unique<PointToPoint>(env());
  lane_ = std::make_unique<Lane>(bell());
  if (config_.use_flat && regions_.shared_by_all())
    flat_ = std::make_unique<Flat>(regions_, config_.rank, n, failure_,
                                   FlatOptions{.spare_cores = spare_cores, .single_copy = config_.single_copy});
  flat_ready_ = flat_ != nullptr;
  for (const Transport* t : by_peer_) transport_names_.emplace_back(t == nullptr ? "self" : t->name());
  registered_ = true;  // before the network thread can see this group
  context_->register_group(config_.id, config_.members, this, mailbox_.get());
  return {};
}

Status Group::run(const FlatCall& call, double timeout_s) { return run(call, nullptr, timeout_s); }

Status Group::run(const FlatCall& call, std::shared_ptr<const BoundPlan> plan, double timeout_s) {
  if (lane_->try_enter()) {
    Status status = perform(call, plan.get(), Deadline::after(timeout_s));
    lane_->leave();
    return status;
  }
  const Visit visit(*this);
  if (!visit) return closed_status();
  const std::shared_ptr<Work> work = launch(call, std::move(plan), timeout_s);
  if (!await(*work, timeout_s + 1)) {
    // Operations before it take longer than this one may. The caller's memory has to be free on return, so all end.
    fail(Status(Code::deadline, "operations launched before this one had not ended at its deadline"), true);
    static_cast<void>(await(*work, kForever_s));
  }
  return work->status();
}

std::shared_ptr<Work> Group::launch(const FlatCall& call, std::shared_ptr<const BoundPlan> plan, double timeout_s) {
  const Visit visit(*this);
  if (!visit) {
    auto refused = std::make_shared<Work>(nullptr);
    refused->finish(closed_status());
    return refused;
  }
  // The group outlives its lane's worker, which close() joins.
  auto work = std::make_shared<Work>([this, call, plan = std::move(plan), deadline = Deadline::after(timeout_s)] {
    return perform(call, plan.get(), deadline);
  });
  lane_->push(work);
  return work;
}

Status Group::wait(const Work& work, double timeout_s) {
  if (work.done()) return work.status();
  if (const Visit visit(*this); visit) {
    if (await(work, timeout_s)) return work.status();
    return {Code::deadline, "the operation had not ended when the wait's deadline passed; it goes on"};
  }
  wait_until_closed();
  return work.done() ? work.status() : closed_status();
}

// Whether the work ended in time. The caller is a visitor.
bool Group::await(const Work& work, double timeout_s) {
  const Failure never;  // the work itself ends when the group fails
  return wait_until([&work] { return work.done(); }, bell(), never, Deadline::after(timeout_s), patience_) ==
         Waited::ready;
}

// Somebody else is closing the group; memory of callers is free when that is over. Never while a visitor.
void Group::wait_until_closed() { const std::lock_guard lock(close_mutex_); }

// Runs one collective on this thread; the caller holds the lane.
Status Group::perform(const FlatCall& call, const BoundPlan* plan, Deadline deadline) {
  if (failure_.failed()) return failure_.cause();
  const std::uint64_t seq = started_.load(std::memory_order_relaxed) + 1;
  started_.store(seq, std::memory_order_seq_cst);
  // Every member hears of a departure by itself; one that is still in an earlier operation may end it in peace.
  if (Status gone = departed(seq); !gone.ok()) {
    fail(gone, false);
    return failure_.cause();
  }
  Status status;
  if (plan == nullptr) {
    status = flat_->run(call, seq, deadline);
  } else {
    // A rank without a plan waits for stages, not for messages: where there are stages, all agree there first.
    if (flat_ != nullptr) status = flat_->agree(call.desc, seq, deadline);
    if (status.ok()) status = execute(call, *plan, seq, deadline);
  }
  finished_.store(seq, std::memory_order_relaxed);
  return end(std::move(status));
}

Status Group::execute(const FlatCall& call, const BoundPlan& plan, std::uint64_t seq, Deadline deadline) {
  const Verdict verdict = disagreement_.begin(seq, call.desc);
  if (verdict.status) mailbox_->poison(seq, *verdict.status);
  if (verdict.tell) dissent(seq);
  ExecuteCall bound;
  bound.desc = call.desc;
  bound.agreement = agreement_of(call.desc);
  bound.seq = seq;
  bound.input = call.send;
  bound.output = call.recv;
  bound.deadline = deadline;
  Status status = executor_->execute(plan, bound);
  return status.code() == Code::deadline ? ask_around(seq, std::move(status)) : status;
}

// A program waits for its neighbours, which may themselves be waiting. Whoever does not answer, or has not come to this
// operation, is to blame.
Status Group::ask_around(std::uint64_t seq, Status status) {
  {
    const std::lock_guard lock(answers_mutex_);
    answers_.assign(config_.members.size(), -1);
  }
  tell_all(control(config_.id, ControlMessage::Kind::where, seq));
  const auto all_answered = [this] {
    const std::lock_guard lock(answers_mutex_);
    return std::count(answers_.begin(), answers_.end(), -1) == 1;  // this rank itself
  };
  static_cast<void>(wait_until(all_answered, bell(), failure_, Deadline::after(kAskAround_s), Patience{0, 1}));
  std::string text;
  std::vector<int> ranks;
  const std::lock_guard lock(answers_mutex_);
  for (int r = 0; r < size(); ++r) {
    const std::int64_t at = answers_[static_cast<std::size_t>(r)];
    if (r == config_.rank || at >= static_cast<std::int64_t>(seq)) continue;
    ranks.push_back(r);
    text += "; rank " + std::to_string(r) +
            (at < 0 ? " does not answer" : " has only come to operation " + std::to_string(at));
  }
  if (ranks.empty()) return status;
  return {Code::deadline, status.message() + text, std::move(ranks)};
}

// Passes a status on; one that the group cannot survive fails the group first.
Status Group::end(Status status) {
  switch (status.code()) {
    case Code::ok:
    case Code::mismatch:
    case Code::usage:
    case Code::unsupported:
      return status;
    default:
      fail(status, true);
      return failure_.cause();
  }
}

Status Group::departed(std::uint64_t seq) const {
  for (int r = 0; r < size(); ++r) {
    const std::int64_t after = left_after_[static_cast<std::size_t>(r)].load(std::memory_order_seq_cst);
    if (after >= 0 && static_cast<std::uint64_t>(after) < seq)
      return {Code::peer_lost,
              "rank " + std::to_string(r) + " has left the group after " + std::to_string(after) + " collectives",
              {r}};
  }
  return {};
}

// Whether nothing comes any more from `peer`, or from anybody: it has left, and what it sent before has had its time.
bool Group::peer_gone(int peer) const noexcept {
  const std::int64_t left_by = now_ns() - static_cast<std::int64_t>(kGoneGrace_s * 1e9);
  const auto gone = [&](int r) {
    return left_at_ns_[static_cast<std::size_t>(r)].load(std::memory_order_relaxed) <= left_by;
  };
  if (peer >= 0) return gone(peer);
  for (int r = 0; r < size(); ++r)
    if (r != config_.rank && !gone(r)) return false;
  return size() > 1;
}

Message Group::send(int dst, int tag, const void* data, std::size_t nbytes, DType dtype, double timeout_s,
                    bool courier) {
  const Visit visit(*this);
  if (!visit) return {nullptr, dst, "send", {}};
  Message message{messages_->post_send(dst, tag, data, nbytes, dtype), dst, "send", Deadline::after(timeout_s)};
  if (courier) start_courier();
  return message;
}

Message Group::recv(int src, int tag, void* data, std::size_t nbytes, DType dtype, double timeout_s, bool courier) {
  const Visit visit(*this);
  if (!visit) return {nullptr, src, "recv", {}};
  Message message{messages_->post_recv(src, tag, data, nbytes, dtype), src, "recv", Deadline::after(timeout_s)};
  if (courier) start_courier();
  return message;
}

bool Group::done(const Message& message) noexcept {
  if (message.request == nullptr || PointToPoint::done(message.request)) return true;
  const Visit visit(*this);
  if (!visit) return true;
  messages_->progress();
  // Where it cannot end well any more, wait() will say so without waiting.
  return PointToPoint::done(message.request) || failure_.failed() || message.deadline.passed() ||
         peer_gone(message.peer);
}

Status Group::wait(const Message& message, double timeout_s) {
  if (message.request == nullptr) return closed_status();
  if (!PointToPoint::done(message.request)) {
    if (const Visit visit(*this); visit) return await(message, timeout_s);
    wait_until_closed();
  }
  return PointToPoint::done(message.request) ? PointToPoint::status(message.request) : closed_status();
}

// As wait(); the caller is a visitor.
Status Group::await(const Message& message, double timeout_s) {
  const Deadline patience_ends = Deadline::after(timeout_s);
  const bool own = message.deadline.at_ns <= patience_ends.at_ns;
  const Deadline deadline = own ? message.deadline : patience_ends;
  const auto ready = [&] {
    messages_->progress();
    return PointToPoint::done(message.request) || peer_gone(message.peer);
  };
  const Waited waited = wait_until(ready, bell(), failure_, deadline, patience_);
  if (PointToPoint::done(message.request)) return PointToPoint::status(message.request);
  if (waited == Waited::deadline && !own)
    return {Code::deadline, "the message was not through when the wait's deadline passed; it goes on"};
  Status cause;
  if (waited == Waited::failed) {
    cause = failure_.cause();
  } else if (waited == Waited::ready) {
    cause = message.peer < 0 ? Status(Code::peer_lost, "all other ranks have left the group")
                             : Status(Code::peer_lost, "rank " + std::to_string(message.peer) + " has left the group",
                                      {message.peer});
  } else {
    std::vector<int> missing;
    if (message.peer >= 0) missing.push_back(message.peer);
    cause =
        Status(Code::deadline,
               std::string(message.operation) +
                   (message.peer >= 0 ? " with rank " + std::to_string(message.peer) : std::string(" from any rank")) +
                   " was not through at its deadline",
               std::move(missing));
  }
  messages_->cancel(message.request, cause);
  if (PointToPoint::status(message.request).ok()) return {};  // it ended well at the last moment
  return end(std::move(cause));
}

void Group::start_courier() {
  const std::lock_guard lock(courier_mutex_);
  ++courier_orders_;
  if (!courier_.joinable()) courier_ = std::thread([this] { serve_courier(); });
  courier_wake_.notify_one();
}

void Group::serve_courier() {
  std::uint64_t served = 0;
  std::unique_lock lock(courier_mutex_);
  for (;;) {
    courier_wake_.wait(lock, [&] { return courier_stop_ || courier_orders_ != served; });
    if (courier_stop_) return;
    served = courier_orders_;
    lock.unlock();
    const auto idle = [this] {
      messages_->progress();
      return messages_->pending() == 0;
    };
    while (wait_until(idle, bell(), failure_, Deadline::after(0.5), Patience{0, 1}) == Waited::deadline) {
      const std::lock_guard stop_lock(courier_mutex_);
      if (courier_stop_) return;
    }
    lock.lock();
  }
}

void Group::abort(const std::string& reason) {
  const Visit visit(*this);
  if (!visit) return;
  fail(Status(Code::aborted, "the group was aborted by rank " + std::to_string(config_.rank) + ": " + reason,
              {config_.rank}),
       true);
}

void Group::fail(const Status& cause, bool tell) {
  if (!failure_.set(cause)) return;
  if (mailbox_ != nullptr) wake();
  if (!tell || !registered_) return;
  ControlMessage message = control(config_.id, ControlMessage::Kind::failure, started_.load());
  message.code = static_cast<std::uint8_t>(cause.code());
  std::string payload(1, static_cast<char>(std::min<std::size_t>(cause.ranks().size(), 255)));
  for (std::size_t i = 0; i < std::min<std::size_t>(cause.ranks().size(), 255); ++i) {
    const std::int32_t rank = cause.ranks()[i];
    payload.append(reinterpret_cast<const char*>(&rank), sizeof rank);
  }
  payload.append(cause.message(), 0, 4096);
  message.set_payload(payload.data(), payload.size());
  tell_all(message);
}

void Group::tell_all(const ControlMessage& message) {
  for (int r = 0; r < size(); ++r)
    if (r != config_.rank) context_->send_control(config_.members[static_cast<std::size_t>(r)], message);
}

int Group::rank_of(int world_rank) const noexcept {
  const auto at = std::find(config_.members.begin(), config_.members.end(), world_rank);
  return at == config_.members.end() ? -1 : static_cast<int>(at - config_.members.begin());
}

void Group::on_peer_lost(int world_rank, const std::string& why) {
  const int rank = rank_of(world_rank);
  if (rank < 0 || left_after_[static_cast<std::size_t>(rank)].load() >= 0) return;
  fail(Status(Code::peer_lost, "rank " + std::to_string(rank) + " was lost: " + why, {rank}), true);
}

void Group::on_control(int world_rank, const ControlMessage& message) {
  const int rank = rank_of(world_rank);
  if (rank < 0) return;
  switch (message.kind) {
    case ControlMessage::Kind::leave: {
      left_at_ns_[static_cast<std::size_t>(rank)].store(now_ns(), std::memory_order_relaxed);
      left_after_[static_cast<std::size_t>(rank)].store(static_cast<std::int64_t>(message.seq),
                                                        std::memory_order_seq_cst);
      const std::uint64_t started = started_.load(std::memory_order_seq_cst);
      if (started > finished_.load() && message.seq < started) fail(departed(started), false);
      wake();
      break;
    }
    case ControlMessage::Kind::dissent: {
      if (message.payload.size() != sizeof(Descriptor)) break;
      Descriptor theirs;
      std::memcpy(&theirs, message.payload.data(), sizeof theirs);
      const Verdict verdict = disagreement_.heard(message.seq, rank, theirs);
      if (verdict.status) mailbox_->poison(message.seq, *verdict.status);
      if (verdict.tell) dissent(message.seq);
      break;
    }
    case ControlMessage::Kind::failure: {
      const std::string_view payload(reinterpret_cast<const char*>(message.payload.data()), message.payload.size());
      std::vector<int> ranks;
      std::size_t at = 1;
      const std::size_t count = payload.empty() ? 0 : static_cast<unsigned char>(payload[0]);
      if (payload.size() < 1 + count * sizeof(std::int32_t) || message.code > static_cast<std::uint8_t>(Code::internal))
        break;
      for (std::size_t i = 0; i < count; ++i, at += sizeof(std::int32_t)) {
        std::int32_t value;
        std::memcpy(&value, payload.data() + at, sizeof value);
        ranks.push_back(value);
      }
      fail(Status(static_cast<Code>(message.code),
                  std::string(payload.substr(at)) + " (told by rank " + std::to_string(rank) + ")", std::move(ranks)),
           false);
      break;
    }
    case ControlMessage::Kind::where:
      context_->send_control(world_rank, control(config_.id, ControlMessage::Kind::here, started_.load()));
      break;
    case ControlMessage::Kind::here: {
      const std::lock_guard lock(answers_mutex_);
      if (static_cast<std::size_t>(rank) < answers_.size())
        answers_[static_cast<std::size_t>(rank)] = static_cast<std::int64_t>(message.seq);
      break;
    }
    default:
      break;
  }
  wake();
}

void Group::on_disagreement(int /*peer*/, std::uint64_t seq, std::uint64_t /*ours*/,
                            std::uint64_t /*theirs*/) noexcept {
  if (disagreement_.found(seq).tell) dissent(seq);
}

// Tells every member what this rank calls operation `seq`.
void Group::dissent(std::uint64_t seq) {
  const std::optional<Descriptor> ours = disagreement_.ours(seq);
  if (!ours) return;  // so long ago that it is forgotten
  ControlMessage message = control(config_.id, ControlMessage::Kind::dissent, seq);
  message.set_payload(&*ours, sizeof *ours);
  tell_all(message);
}

void Group::on_broken(const Status& cause) noexcept { fail(cause, true); }

void Group::close() {
  const std::lock_guard lock(close_mutex_);
  if (closed_) return;
  closed_ = true;
  if (lane_ != nullptr) {
    finish_work();
    tell_all(control(config_.id, ControlMessage::Kind::leave, finished_.load()));
    failure_.set(closed_status());
    closing_.store(true, std::memory_order_seq_cst);
    {
      const std::lock_guard courier_lock(courier_mutex_);
      courier_stop_ = true;
    }
    courier_wake_.notify_all();
    // Whoever is inside leaves now, because the group has failed. The lane's token comes last, as a visitor may still
    // push work; it is never given back.
    while (visits_.load(std::memory_order_seq_cst) != 0 || !lane_->try_enter()) {
      wake();
      std::this_thread::yield();
    }
    lane_->stop();
    if (courier_.joinable()) courier_.join();
  }
  if (registered_) context_->unregister_group(config_.id);
  flat_.reset();
  executor_.reset();
  messages_.reset();
  progress_.reset();
  transports_.clear();
  mailbox_.reset();
  if (!regions_.base.empty()) context_->release_regions(regions_);
}

void Group::finish_work() {
  if (failure_.failed()) return;
  lane_->drain(Deadline::after(config_.timeout_s), failure_);
  const auto idle = [this] {
    messages_->progress();
    return messages_->pending() == 0;
  };
  static_cast<void>(wait_until(idle, bell(), failure_, Deadline::after(config_.timeout_s), patience_));
}

}  // namespace pycomm
