#include <cstring>
#include <utility>

#include "transport/tcp/inbound.h"
#include "transport/tcp/sender.h"
#include "transport/tcp/tcp.h"

namespace pycomm::tcp {
namespace {

class TcpEndpoint final : public Endpoint {
 public:
  TcpEndpoint(std::uint32_t group, const std::vector<std::shared_ptr<Sender>>& senders, Receiver& receiver)
      : group_(group), senders_(senders), receiver_(receiver) {}

  void post_send(const FrameHeader& header, const void* payload, Lent& lent) override {
    const std::size_t lane = (std::size_t{header.group} + header.channel) % senders_.size();
    senders_[lane]->post(header, payload, lent, receiver_);
  }
  void cancel(FrameType type, std::uint64_t seq) noexcept override {
    cancel_if(
        [&](const FrameHeader& header) { return header.group == group_ && header.type == type && header.seq == seq; });
  }
  void cancel_all() noexcept override {
    cancel_if([this](const FrameHeader& header) { return header.group == group_; });
  }

 private:
  void cancel_if(const std::function<bool(const FrameHeader&)>& chosen) {
    for (const auto& sender : senders_) sender->cancel(chosen);
  }
  const std::uint32_t group_;
  const std::vector<std::shared_ptr<Sender>>& senders_;
  Receiver& receiver_;
};

class TcpTransport final : public Transport {
 public:
  TcpTransport(Reactor& reactor, std::shared_ptr<Network> network, std::uint32_t group,
               std::vector<std::unique_ptr<TcpEndpoint>> endpoints)
      : reactor_(reactor), network_(std::move(network)), group_(group), endpoints_(std::move(endpoints)) {}
  ~TcpTransport() override {
    for (const auto& endpoint : endpoints_) endpoint->cancel_all();
    reactor_.call([this] { network_->close_route(group_); });
  }
  const char* name() const noexcept override { return "tcp"; }
  Endpoint& connect(int peer) override { return *endpoints_.at(static_cast<std::size_t>(peer)); }
  bool poll(Receiver&) noexcept override { return false; }

 private:
  Reactor& reactor_;
  const std::shared_ptr<Network> network_;
  const std::uint32_t group_;
  const std::vector<std::unique_ptr<TcpEndpoint>> endpoints_;
};

}  // namespace

Network::Network(Reactor& reactor, int size, int connections, Hooks hooks)
    : reactor_(reactor),
      hooks_(std::move(hooks)),
      senders_(static_cast<std::size_t>(size)),
      inbounds_(static_cast<std::size_t>(size)),
      ended_from_(static_cast<std::size_t>(size)) {
  for (int peer = 0; peer < size; ++peer) {
    for (int index = 0; index < connections; ++index) {
      Sender::Hooks of_sender;
      of_sender.dial = [this, peer, index](Sender::Opened opened) { hooks_.dial(peer, index, std::move(opened)); };
      of_sender.broken = [this, peer](const Status& why) {
        // An end without a reason is what a peer that left looks like.
        if (!why.message().empty()) return hooks_.broken(peer, why);
        drop_senders(peer);
        hooks_.ended(peer);
      };
      senders_[static_cast<std::size_t>(peer)].push_back(std::make_shared<Sender>(reactor, std::move(of_sender)));
    }
  }
}

Network::~Network() = default;

std::unique_ptr<Transport> Network::transport(std::uint32_t group, const std::vector<int>& members,
                                              Receiver& receiver) {
  std::vector<std::unique_ptr<TcpEndpoint>> endpoints;
  endpoints.reserve(members.size());
  for (const int peer : members)
    endpoints.push_back(std::make_unique<TcpEndpoint>(group, senders_.at(static_cast<std::size_t>(peer)), receiver));
  reactor_.call([&] { open_route(group, members, receiver); });
  return std::make_unique<TcpTransport>(reactor_, shared_from_this(), group, std::move(endpoints));
}

const Network::Route* Network::route(std::uint32_t group) const {
  const auto found = routes_.find(group);
  return found == routes_.end() ? nullptr : &found->second;
}

void Network::open_route(std::uint32_t group, const std::vector<int>& members, Receiver& receiver) {
  retired_.erase(group);
  Route& route = routes_[group];
  route = {members, &receiver};
  const auto waiting = kept_.extract(group);
  if (!waiting.empty())
    for (KeptFrame& frame : waiting.mapped()) deliver(route, frame);
  // By value: a connection that goes on may end, and leave the list.
  for (const auto& of_peer : std::vector(inbounds_))
    for (const auto& inbound : of_peer) inbound->resume();
}

void Network::close_route(std::uint32_t group) {
  if (routes_.erase(group) == 0) return;
  retired_.insert(group);
  for (const auto& of_peer : inbounds_)
    for (const auto& inbound : of_peer) inbound->forget(group);
}

void Network::keep(KeptFrame frame) {
  if (const Route* at = route(frame.header.group); at != nullptr) {
    deliver(*at, frame);
  } else if (retired(frame.header.group)) {
    release(sizeof(FrameHeader) + frame.payload.size());
  } else {
    kept_[frame.header.group].push_back(std::move(frame));
  }
}

void Network::deliver(const Route& route, KeptFrame& frame) {
  release(sizeof(FrameHeader) + frame.payload.size());
  const FrameHeader& header = frame.header;
  if (header.src >= route.members.size() || route.members[header.src] != frame.peer)
    return hooks_.broken(frame.peer, Status(Code::protocol, "it sent a frame in the name of another rank"));
  const int src = static_cast<int>(header.src);
  const Landing landing = route.receiver->landing(src, header);
  if (landing.dst != nullptr && header.nbytes > 0) {
    if (landing.reduce != nullptr) {
      landing.reduce(landing.dst, landing.operand, frame.payload.data(), header.nbytes / landing.itemsize);
    } else {
      std::memcpy(landing.dst, frame.payload.data(), header.nbytes);
    }
  }
  route.receiver->landed(src, header, landing);
}

void Network::adopt(int peer, UniqueFd fd) {
  auto inbound = std::make_shared<Inbound>(reactor_, *this, peer, std::move(fd));
  inbounds_[static_cast<std::size_t>(peer)].push_back(inbound);
  if (!inbound->open()) ended(inbound, Status(Code::resource, "cannot watch a data connection"));
}

void Network::ended(const std::shared_ptr<Inbound>& inbound, const Status& why) {
  const int peer = inbound->peer();
  inbound->close();
  std::erase(inbounds_[static_cast<std::size_t>(peer)], inbound);
  ++ended_from_[static_cast<std::size_t>(peer)];
  if (why.ok()) {
    hooks_.ended(peer);
  } else {
    hooks_.broken(peer, why);
  }
}

void Network::drop_senders(int peer) {
  for (const auto& sender : senders_[static_cast<std::size_t>(peer)]) sender->drop();
}

void Network::drop(int peer) {
  drop_senders(peer);
  for (const auto& inbound : std::exchange(inbounds_[static_cast<std::size_t>(peer)], {})) inbound->close();
}

void Network::close() {
  for (std::size_t peer = 0; peer < senders_.size(); ++peer) drop(static_cast<int>(peer));
}

std::uint32_t Network::opened_to(int peer) const {
  std::uint32_t count = 0;
  for (const auto& sender : senders_[static_cast<std::size_t>(peer)]) count += sender->is_open();
  return count;
}

bool Network::drained() const {
  for (const auto& of_peer : senders_)
    for (const auto& sender : of_peer)
      if (!sender->drained()) return false;
  return true;
}

}  // namespace pycomm::tcp
