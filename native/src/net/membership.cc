// Groups, what is said to them, and the end of peers.
#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "net/hub.h"

namespace pycomm {
namespace {

constexpr double kSuspicion_s = 1.0;  // a data connection ended; the news of why are on their way
constexpr double kLastData_s = 5.0;   // data of a peer that said goodbye are on their way
constexpr std::size_t kMaxKeptMessages = 65536;

}  // namespace

void Context::Hub::add_group(std::uint32_t group, std::vector<int> members, GroupListener* listener,
                             Receiver* receiver) {
  retired_.erase(group);
  if (receiver != nullptr) network_->open_route(group, members, *receiver);
  groups_[group] = {std::move(members), listener};
  auto waiting = kept_.extract(group);
  if (!waiting.empty()) {
    kept_count_ -= waiting.mapped().size();
    for (const Kept& kept : waiting.mapped()) listener->on_control(kept.peer, kept.message);
  }
  for (int peer = 0; peer < config_.size; ++peer)
    if (const Peer& entry = peers_[index(peer)]; entry.stage == Stage::gone && peer != config_.rank)
      tell(groups_[group], peer, entry.why);
}

void Context::Hub::remove_group(std::uint32_t group) {
  groups_.erase(group);
  network_->close_route(group);
  retired_.insert(group);
  if (const auto waiting = kept_.extract(group); !waiting.empty()) kept_count_ -= waiting.mapped().size();
}

void Context::Hub::tell(const Group& group, int peer, const std::string& why) {
  if (std::find(group.members.begin(), group.members.end(), peer) == group.members.end()) return;
  if (why.empty()) {
    group.listener->on_peer_left(peer);
  } else {
    group.listener->on_peer_lost(peer, why);
  }
}

void Context::Hub::on_control(int peer, const ControlMessage& message, UniqueFd fd) {
  using What = ControlMessage::Kind;
  if (message.kind == What::bye) return on_goodbye(peer, message);
  if (message.kind > What::bye) return regions_->on_message(peer, message, std::move(fd));
  if (const auto found = groups_.find(message.group); found != groups_.end()) {
    const std::vector<int>& members = found->second.members;
    // Only members speak for a group.
    if (std::find(members.begin(), members.end(), peer) != members.end())
      found->second.listener->on_control(peer, message);
  } else if (retired_.count(message.group) == 0 && kept_count_ < kMaxKeptMessages) {
    kept_[message.group].push_back({peer, message});
    ++kept_count_;
  }
}

void Context::Hub::on_goodbye(int peer, const ControlMessage& message) {
  Peer& entry = peers_[index(peer)];
  if (entry.stage != Stage::up) return;
  entry.stage = Stage::leaving;
  entry.connections = ByteReader(message.payload).get<std::uint32_t>();
  entry.control->close();
  {
    const std::lock_guard lock(mutex_);
    --present_;
    changed_.notify_all();
  }
  network_->drop_senders(peer);
  reactor_->after(kLastData_s, [this, peer] { gone(peer, ""); });
  look_whether_left(peer);
}

void Context::Hub::look_whether_left(int peer) {
  const Peer& entry = peers_[index(peer)];
  if (entry.stage == Stage::leaving && network_->ended_from(peer) >= entry.connections) gone(peer, "");
}

void Context::Hub::on_data_ended(int peer, const std::string& why) {
  Peer& entry = peers_[index(peer)];
  if (entry.stage == Stage::leaving) return look_whether_left(peer);
  if (entry.stage == Stage::gone || !entry.suspicion.empty()) return;
  entry.suspicion = why;
  reactor_->after(kSuspicion_s, [this, peer, why] {
    if (peers_[index(peer)].stage != Stage::leaving) gone(peer, why);
  });
}

void Context::Hub::on_process_ended(int peer) {
  // What it said last lies in the socket, perhaps a goodbye.
  if (const auto control = peers_[index(peer)].control; control) control->drain();
  if (peers_[index(peer)].stage == Stage::up)
    gone(peer, "its process (pid " + std::to_string(infos_[index(peer)].pid) + " on this host) ended without goodbye");
}

void Context::Hub::gone(int peer, const std::string& why) {
  Peer& entry = peers_[index(peer)];
  if (entry.stage == Stage::gone) return;
  const bool was_up = entry.stage == Stage::up;
  entry.stage = Stage::gone;
  entry.why = why;
  if (entry.control) entry.control->close();
  if (entry.process) entry.process->close();
  network_->drop(peer);
  if (was_up) {
    const std::lock_guard lock(mutex_);
    --present_;
    changed_.notify_all();
  }
  // Peers hang up on whoever has said goodbye; that is no news.
  if (leaving_) return;
  if (!why.empty())
    give_up({Code::peer_lost, "rank " + std::to_string(peer) + " was lost while the job was joined: " + why, {peer}});
  regions_->on_lost(peer, why.empty() ? "it has left the job" : why);
  // By value: a listener may make its group go.
  for (const auto& [id, group] : std::map(groups_))
    if (groups_.count(id) != 0) tell(group, peer, why);
}

}  // namespace pycomm
