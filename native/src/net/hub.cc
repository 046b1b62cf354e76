#include "net/hub.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/random.h"
#include "net/dialer.h"

namespace pycomm {
namespace {

std::string list_of(const std::vector<int>& ranks) {
  std::string text;
  for (std::size_t i = 0; i < ranks.size() && i < 20; ++i) text += (i ? ", " : "") + std::to_string(ranks[i]);
  return ranks.size() > 20 ? text + ", ... (" + std::to_string(ranks.size()) + " in all)" : text;
}

}  // namespace

Context::Hub::~Hub() {
  if (reactor_) reactor_->stop();
}

Status Context::Hub::start() {
  Result<std::unique_ptr<Reactor>> reactor = Reactor::start("pycomm-net");
  if (!reactor.ok()) return reactor.status();
  reactor_ = std::move(*reactor);
  peers_.resize(index(config_.size));
  absent_ = config_.size - 1;
  tcp::Hooks hooks;
  hooks.dial = [this](int peer, int connection, auto done) { dial_data(peer, connection, std::move(done)); };
  hooks.broken = [this](int peer, const Status& why) {
    // A broken connection may be the first sign of an end that the control connection explains in a moment.
    if (why.code() == Code::peer_lost) return on_data_ended(peer, why.message());
    gone(peer, why.message());
  };
  hooks.ended = [this](int peer) { on_data_ended(peer, "it closed its data connections"); };
  network_ = std::make_shared<tcp::Network>(*reactor_, config_.size, config_.tcp_connections, std::move(hooks));
  regions_ = std::make_unique<RegionExchange>(
      *reactor_, config_.rank, [this](int peer, const ControlMessage& message, std::shared_ptr<const UniqueFd> fd) {
        send(peer, message, std::move(fd));
      });
  return {};
}

std::shared_ptr<Acceptor> Context::Hub::acceptor(UniqueFd listener, bool is_unix) {
  AcceptorConfig config;
  config.secret = config_.secret;
  config.accepts = [this](const Hello& hello) { return accepts(hello); };
  config.welcome = [this, is_unix](UniqueFd fd, const Hello& hello) {
    const int peer = static_cast<int>(hello.from);
    if (hello.purpose == Purpose::control) return adopt_control(peer, std::move(fd), is_unix);
    if (peers_[index(peer)].stage != Stage::gone) network_->adopt(peer, std::move(fd));
  };
  return std::make_shared<Acceptor>(*reactor_, std::move(listener), std::move(config));
}

Status Context::Hub::listen() {
  Address address = store_->local();
  if (!config_.interface.empty()) {
    Result<Address> chosen = interface_address(config_.interface, config_.family);
    if (!chosen.ok()) return chosen.status();
    address = *chosen;
  }
  address.set_port(0);
  Result<UniqueFd> listener = listen_on(address);
  if (!listener.ok()) return listener.status();
  Result<Address> bound = local_address(listener->get());
  if (!bound.ok()) return bound.status();
  me_ = PeerInfo::of_this_process();
  me_.tcp = *bound;
  acceptors_.push_back(acceptor(std::move(*listener), false));
  if (!config_.allow_shared_memory) return {};
  const std::string name = "pycomm-" + random_hex(16);
  Result<UniqueFd> local = listen_on(abstract_address(name));
  // Without unix sockets there is no shared memory, and everything goes over TCP.
  if (!local.ok()) return {};
  me_.unix_name = name;
  acceptors_.push_back(acceptor(std::move(*local), true));
  return {};
}

Status Context::Hub::publish_and_learn(Deadline deadline) {
  Result<std::unique_ptr<StoreClient>> store =
      StoreClient::connect(config_.store_host, config_.store_port, config_.secret, deadline, config_.family);
  if (!store.ok()) return store.status();
  store_ = std::move(*store);
  PYCOMM_TRY(listen());
  bool open = true;
  // Peers may dial as soon as they know of this rank; nothing of theirs is lost meanwhile, it waits in the backlog.
  const std::string prefix = "pycomm/" + config_.name + "/";
  PYCOMM_TRY(store_->set(prefix + std::to_string(config_.rank), me_.encode(), deadline));
  std::vector<std::string> keys;
  keys.reserve(static_cast<std::size_t>(config_.size));
  for (int rank = 0; rank < config_.size; ++rank) keys.push_back(prefix + std::to_string(rank));
  Result<std::vector<std::optional<std::string>>> values = store_->get_many(keys, deadline);
  if (!values.ok()) return values.status();
  std::vector<int> missing;
  for (int rank = 0; rank < config_.size; ++rank)
    if (!(*values)[index(rank)]) missing.push_back(rank);
  if (!missing.empty())
    return {Code::deadline,
            "rank " + list_of(missing) + " of " + std::to_string(config_.size) + " did not join within " +
                std::to_string(static_cast<long>(config_.timeout_s)) + " s; look at the output of those processes",
            missing};
  for (int rank = 0; rank < config_.size; ++rank) {
    Result<PeerInfo> info = PeerInfo::decode(*(*values)[index(rank)]);
    if (!info.ok())
      return {info.status().code(), "rank " + std::to_string(rank) + ": " + info.status().message(), {rank}};
    infos_.push_back(*info);
  }
  reactor_->call([&] {
    for (const auto& one : acceptors_) open = one->open() && open;
  });
  if (!open) return {Code::resource, "cannot watch the listening sockets"};
  return {};
}

Status Context::Hub::join(Deadline deadline) {
  reactor_->call([&] {
    for (int peer = 0; peer < config_.rank; ++peer) dial_control(peer, deadline);
  });
  std::unique_lock lock(mutex_);
  while (absent_ > 0 && !hopeless_ && !deadline.passed()) {
    changed_.wait_for(lock, std::chrono::milliseconds(100));
    if (sleep_hook.call != nullptr) sleep_hook.call(sleep_hook.arg);
  }
  if (hopeless_) return *hopeless_;
  if (absent_ == 0) return {};
  lock.unlock();
  std::vector<int> missing;
  reactor_->call([&] {
    for (int peer = 0; peer < config_.size; ++peer)
      if (peer != config_.rank && peers_[index(peer)].stage == Stage::absent) missing.push_back(peer);
  });
  std::string where;
  if (!missing.empty()) where = " (" + infos_[index(missing.front())].tcp.text() + ")";
  return {Code::deadline,
          "no connection with rank " + list_of(missing) + where + " within " +
              std::to_string(static_cast<long>(config_.timeout_s)) + " s; are these hosts reachable from each other?",
          missing};
}

void Context::Hub::give_up(Status why) {
  const std::lock_guard lock(mutex_);
  if (absent_ > 0 && !hopeless_) hopeless_ = std::move(why);
  changed_.notify_all();
}

bool Context::Hub::accepts(const Hello& hello) const {
  if (hello.to != static_cast<std::uint32_t>(config_.rank) || hello.instance != me_.instance) return false;
  if (hello.from >= static_cast<std::uint32_t>(config_.size)) return false;
  if (hello.purpose == Purpose::data) return true;
  return hello.purpose == Purpose::control && hello.from > hello.to && peers_[hello.from].stage == Stage::absent;
}

void Context::Hub::dial_control(int peer, Deadline deadline) {
  const PeerInfo& info = infos_[index(peer)];
  DialConfig dialling;
  if (!me_.unix_name.empty() && !info.unix_name.empty() && me_.same_kernel(info))
    dialling.targets.push_back(abstract_address(info.unix_name));
  dialling.targets.push_back(info.tcp);
  dialling.hello = {Purpose::control, static_cast<std::uint32_t>(config_.rank), static_cast<std::uint32_t>(peer), 0,
                    info.instance};
  dialling.secret = config_.secret;
  dialling.deadline = deadline;
  const std::size_t last = dialling.targets.size() - 1;
  dialling.done = [this, peer, last](Result<UniqueFd> fd, std::size_t target) {
    if (fd.ok()) return adopt_control(peer, std::move(*fd), target < last);
    if (fd.status().code() == Code::deadline) return;  // join() has the same deadline and names all that miss
    give_up({fd.status().code(), "connecting to rank " + std::to_string(peer) + ": " + fd.status().message(), {peer}});
  };
  dial(*reactor_, std::move(dialling));
}

void Context::Hub::dial_data(int peer, int connection, std::function<void(Result<UniqueFd>)> done) {
  const PeerInfo& info = infos_[index(peer)];
  DialConfig dialling;
  dialling.targets.push_back(info.tcp);
  dialling.hello = {Purpose::data, static_cast<std::uint32_t>(config_.rank), static_cast<std::uint32_t>(peer),
                    static_cast<std::uint32_t>(connection), info.instance};
  dialling.secret = config_.secret;
  dialling.deadline = Deadline::after(config_.timeout_s);
  dialling.done = [done = std::move(done)](Result<UniqueFd> fd, std::size_t) { done(std::move(fd)); };
  dial(*reactor_, std::move(dialling));
}

void Context::Hub::adopt_control(int peer, UniqueFd fd, bool is_unix) {
  Peer& entry = peers_[index(peer)];
  if (entry.stage != Stage::absent) return;
  ControlConnection::Hooks hooks;
  hooks.message = [this, peer](const ControlMessage& message, UniqueFd attached) {
    on_control(peer, message, std::move(attached));
  };
  hooks.ended = [this, peer](const Status& why) {
    const int pid = process_of(peer);
    const std::string who = pid != 0 ? "its process (pid " + std::to_string(pid) + " on this host)" : "its process";
    if (peers_[index(peer)].stage == Stage::up)
      gone(peer, why.code() == Code::protocol ? why.message()
                                              : who + " ended or closed its connection without goodbye" +
                                                    (why.ok() ? "" : " (" + why.message() + ")"));
  };
  entry.control = std::make_shared<ControlConnection>(*reactor_, std::move(fd), is_unix, std::move(hooks));
  entry.is_unix = is_unix;
  entry.stage = Stage::up;
  const bool open = entry.control->open();
  const PeerInfo& info = infos_[index(peer)];
  if (info.same_processes(me_) && info.pid != me_.pid)
    entry.process = ProcessWatch::start(*reactor_, info.pid, [this, peer] { on_process_ended(peer); });
  {
    const std::lock_guard lock(mutex_);
    --absent_;
    ++present_;
    changed_.notify_all();
  }
  if (!open) gone(peer, "this process is out of descriptors or memory");
}

void Context::Hub::send(int peer, const ControlMessage& message, std::shared_ptr<const UniqueFd> fd) {
  const Peer& entry = peers_[index(peer)];
  if (entry.stage == Stage::up && entry.control) entry.control->send(message, std::move(fd));
}

void Context::Hub::goodbye() {
  std::call_once(left_, [this] {
    const auto wait_for = [this](Deadline deadline, auto&& holds) {
      bool yes = false;
      for (;;) {
        reactor_->call([&] { yes = holds(); });
        if (yes || deadline.passed()) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    };
    if (network_) wait_for(Deadline::after(2), [this] { return network_->drained(); });
    reactor_->call([this] {
      leaving_ = true;
      for (int peer = 0; peer < config_.size; ++peer) {
        const Peer& entry = peers_[index(peer)];
        if (entry.stage != Stage::up) continue;
        ControlMessage bye;
        bye.kind = ControlMessage::Kind::bye;
        bye.payload = ByteWriter().put(network_->opened_to(peer)).take();
        entry.control->send(bye);
        entry.control->finish();
        network_->drop_senders(peer);
      }
    });
    // Closing with something unread would tear down what the peer has not read: it closes first, and does so at once.
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(1), [this] { return present_ <= 0; });
    lock.unlock();
    reactor_->call([this] {
      for (const auto& one : acceptors_) one->close();
      for (Peer& entry : peers_) {
        if (entry.control) entry.control->close();
        if (entry.process) entry.process->close();
        entry.stage = Stage::gone;
      }
      if (network_) network_->close();
    });
    reactor_->stop();
    if (store_) store_->close();
  });
}

}  // namespace pycomm
