#include "net/context.h"

#include <algorithm>
#include <utility>

#include "net/hub.h"

namespace pycomm {
namespace {

Status check(const ContextConfig& config) {
  const auto wrong = [](const std::string& what) { return Status(Code::usage, what); };
  if (config.size < 1) return wrong("the job must have at least one rank, got size " + std::to_string(config.size));
  if (config.rank < 0 || config.rank >= config.size)
    return wrong("rank " + std::to_string(config.rank) + " is outside 0.." + std::to_string(config.size - 1));
  if (config.family != 0 && config.family != 4 && config.family != 6)
    return wrong("address family must be 0, 4 or 6, got " + std::to_string(config.family));
  if (config.tcp_connections < 1 || config.tcp_connections > 64)
    return wrong("connections per peer must be 1 to 64, got " + std::to_string(config.tcp_connections));
  return {};
}

}  // namespace

Result<std::shared_ptr<Context>> Context::connect(const ContextConfig& config) {
  PYCOMM_TRY(check(config));
  const Deadline deadline = Deadline::after(config.timeout_s);
  const auto hub = std::make_shared<Hub>(config);
  PYCOMM_TRY(hub->start());
  // From here on the destructor leaves cleanly whatever has been set up.
  const std::shared_ptr<Context> context(new Context(hub));
  PYCOMM_TRY(hub->publish_and_learn(deadline));
  PYCOMM_TRY(hub->join(deadline));
  return context;
}

Context::~Context() {
  if (hub_->reactor().forked()) {
    // The parent's sockets and thread: this copy must neither close nor join them. It stays until the child ends.
    static_cast<void>(new std::shared_ptr<Hub>(std::move(hub_)));
    return;
  }
  hub_->goodbye();
}

int Context::rank() const noexcept { return hub_->config().rank; }
int Context::size() const noexcept { return hub_->config().size; }
StoreClient& Context::store() { return hub_->store(); }
bool Context::same_host(int peer) const { return hub_->same_host(peer); }
int Context::process_of(int peer) const { return hub_->process_of(peer); }

Result<Regions> Context::share_regions(std::uint32_t group, const std::vector<int>& members, std::size_t nbytes,
                                       Deadline deadline, const Failure& failure) {
  std::vector<bool> reachable;
  for (const int peer : members) {
    if (peer < 0 || peer >= size()) return Status(Code::usage, "there is no rank " + std::to_string(peer));
    reachable.push_back(peer != rank() && same_host(peer));
  }
  if (std::find(members.begin(), members.end(), rank()) == members.end())
    return Status(Code::usage, "rank " + std::to_string(rank()) + " is no member of group " + std::to_string(group));
  return hub_->regions().share(group, members, reachable, nbytes, deadline, failure);
}

void Context::register_group(std::uint32_t group, std::vector<int> members, GroupListener* listener,
                             Receiver* receiver) {
  hub_->reactor().call([&] { hub_->add_group(group, std::move(members), listener, receiver); });
}

void Context::unregister_group(std::uint32_t group) {
  hub_->reactor().call([&] { hub_->remove_group(group); });
}

void Context::send_control(int peer, const ControlMessage& message) {
  if (peer < 0 || peer >= size()) return;
  hub_->reactor().post([hub = hub_.get(), peer, message] { hub->send(peer, message, nullptr); });
}

std::unique_ptr<Transport> Context::tcp_transport(std::uint32_t group, const std::vector<int>& members,
                                                  Receiver& receiver) {
  return hub_->network().transport(group, members, receiver);
}

void Context::goodbye() { hub_->goodbye(); }

}  // namespace pycomm
