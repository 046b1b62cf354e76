#include "pycomm/mailbox.h"

#include <cstring>
#include <optional>
#include <string>
#include <utility>

#include "executor/flight.h"
#include "executor/inbox.h"
#include "executor/matcher.h"

namespace pycomm {
namespace {

const Landing kForget{};

std::string hex(std::uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (std::size_t i = text.size(); i-- > 0; value >>= 4) text[i] = kDigits[value & 15];
  return text;
}

// The slot that a frame of the open operation belongs to; null when the plan has none.
Slot* slot_of(Inbox& inbox, int peer, const FrameHeader& header) noexcept {
  const BoundPlan& plan = *inbox.plan;
  if (header.channel >= plan.channels || header.tag < 0) return nullptr;
  const LaneSlots lane = plan.incoming[static_cast<std::size_t>(peer) * plan.channels + header.channel];
  if (static_cast<std::uint32_t>(header.tag) >= lane.count) return nullptr;
  Slot& slot = inbox.slots[plan.slot_order[lane.first + static_cast<std::uint32_t>(header.tag)]];
  return slot.total == header.total ? &slot : nullptr;
}

// Pieces come in order, and an empty message comes once.
bool continues(const Slot& slot, const FrameHeader& header) noexcept {
  return header.offset == slot.arrived && (header.nbytes != 0 || (header.total == 0 && !slot.seen && !slot.has_kept()));
}

void land_kept(const Inbox& inbox, const Slot& slot, const Kept& piece) noexcept {
  if (piece.nbytes == 0) return;
  std::byte* const dst = slot.dst + piece.offset;
  if (slot.operand == nullptr) {
    std::memcpy(dst, piece.data.get(), piece.nbytes);
  } else {
    inbox.reduce(dst, slot.operand + piece.offset, piece.data.get(), piece.nbytes / inbox.itemsize);
  }
}

}  // namespace

struct Mailbox::News {
  int peer = -1;
  bool disagreement = false;
  std::uint64_t seq = 0;
  std::uint64_t ours = 0;
  std::uint64_t theirs = 0;
  Status broken;
};

Mailbox::Mailbox(const MailboxConfig& config, Doorbell& bell, MailboxListener& listener)
    : config_(config),
      bell_(bell),
      listener_(listener),
      budget_(config.limit_nbytes),
      matcher_(std::make_unique<Matcher>(config_, budget_)),
      flights_(std::make_unique<FlightPool>()) {}

Mailbox::~Mailbox() = default;

Status Mailbox::malformed(int peer, const FrameHeader& header) const {
  const std::string who = "rank " + std::to_string(peer) + " sent rank " + std::to_string(config_.rank) + " ";
  if (header.magic != kFrameMagic) {
    return {Code::protocol, who + "bytes that are no frame; the versions may differ or memory was overwritten", {peer}};
  }
  const bool sound = header.group == config_.group && static_cast<int>(header.src) == peer &&
                     header.nbytes <= kMaxFramePayload && header.offset <= header.total &&
                     header.nbytes <= header.total - header.offset && header.type <= FrameType::refuse &&
                     header.dtype <= DType::boolean;
  if (sound) return {};
  return {Code::protocol,
          who + "a frame that makes no sense here (type " + std::to_string(static_cast<int>(header.type)) + ", group " +
              std::to_string(header.group) + ", source " + std::to_string(header.src) + ", bytes " +
              std::to_string(header.offset) + "+" + std::to_string(header.nbytes) + " of " +
              std::to_string(header.total) + ")",
          {peer}};
}

Landing Mailbox::landing(int peer, const FrameHeader& header) noexcept {
  News news;
  news.peer = peer;
  news.broken = malformed(peer, header);
  Landing landing = kForget;
  if (news.broken.ok()) {
    if (header.type == FrameType::schedule) {
      const std::lock_guard lock(mutex_);
      landing = schedule_landing(peer, header, news);
    } else {
      landing = matcher_->landing(peer, header, news.broken);
    }
  }
  tell(news);
  return landing;
}

Landing Mailbox::schedule_landing(int peer, const FrameHeader& header, News& news) {
  if ((any_ended_ && header.seq <= ended_) || poisoned_.contains(header.seq)) return kForget;
  if (inbox_ == nullptr || header.seq > inbox_->seq) return keep(header, news);
  if (header.seq < inbox_->seq) return kForget;
  if (header.agreement != inbox_->agreement) {
    stop(*inbox_, peer, header.agreement, news);
    return kForget;
  }
  Slot* const slot = slot_of(*inbox_, peer, header);
  if (slot == nullptr || !continues(*slot, header)) {
    news.broken = Status(Code::protocol,
                         "operation " + std::to_string(header.seq) + ": rank " + std::to_string(peer) + " sent bytes " +
                             std::to_string(header.offset) + "+" + std::to_string(header.nbytes) + " of a message of " +
                             std::to_string(header.total) + " (number " + std::to_string(header.tag) + " on channel " +
                             std::to_string(header.channel) + "), which the plan of rank " +
                             std::to_string(config_.rank) + " does not expect",
                         {peer});
    return kForget;
  }
  if (slot->draining || slot->has_kept() || header.offset + header.nbytes > slot->allowed) {
    return keep(header, news);
  }
  Flight& flight = flights_->take();
  flight.target = slot;
  slot->flight = &flight;
  slot->arrived += header.nbytes;
  const std::byte* const operand = slot->operand == nullptr ? nullptr : slot->operand + header.offset;
  return {slot->dst == nullptr ? nullptr : slot->dst + header.offset, operand,
          operand == nullptr ? nullptr : inbox_->reduce, inbox_->itemsize, &flight};
}

Landing Mailbox::keep(const FrameHeader& header, News& news) {
  const std::size_t cost = header.nbytes + sizeof(Early);
  if (!budget_.take(cost)) {
    news.broken = Status(Code::resource, "messages that arrived early at rank " + std::to_string(config_.rank) +
                                             " would exceed " + std::to_string(budget_.limit) +
                                             " bytes; this rank is far behind its peers: raise the limit"
                                             " or synchronise more often");
    return kForget;
  }
  OwnBytes memory = own_bytes(header.nbytes);
  if (memory == nullptr) {
    budget_.give_back(cost);
    news.broken = Status(Code::resource, "no memory for an early message of " + std::to_string(header.nbytes) +
                                             " bytes at rank " + std::to_string(config_.rank));
    return kForget;
  }
  Flight& flight = flights_->take();
  flight.kept = std::move(memory);
  flight.kept_nbytes = cost;
  return {flight.kept.get(), nullptr, nullptr, 1, &flight};
}

void Mailbox::landed(int peer, const FrameHeader& header, const Landing& landing) noexcept {
  if (landing.cookie == nullptr) return;
  if (header.type != FrameType::schedule) {
    matcher_->landed(peer, header, landing);
    bell_.ring();
    return;
  }
  News news;
  news.peer = peer;
  {
    const std::lock_guard lock(mutex_);
    Flight& flight = *static_cast<Flight*>(landing.cookie);
    if (flight.kept != nullptr) {
      settle(peer, header, flight, news);
    } else if (flight.target != nullptr) {
      Slot& slot = *static_cast<Slot*>(flight.target);
      slot.flight = nullptr;
      slot.landed += header.nbytes;
      slot.seen = true;
      // close() may be waiting for just this payload: then nobody asks what has grown any more.
      if (inbox_ != nullptr) mark_grown(*inbox_, static_cast<std::uint32_t>(&slot - inbox_->slots.data()));
    }
    flights_->give_back(flight);
  }
  tell(news);
  bell_.ring();
}

// A payload has landed in memory of our own: to the slot, to the operations to come, or away.
void Mailbox::settle(int peer, const FrameHeader& header, Flight& flight, News& news) {
  Early early{peer, header, {header.offset, header.nbytes, std::move(flight.kept)}};
  if ((any_ended_ && header.seq <= ended_) || poisoned_.contains(header.seq) ||
      (inbox_ != nullptr && header.seq < inbox_->seq)) {
    budget_.give_back(flight.kept_nbytes);
  } else if (inbox_ != nullptr && header.seq == inbox_->seq) {
    attach(std::move(early), news);
  } else {
    early_[header.seq].push_back(std::move(early));
  }
}

// Hands a kept piece to its slot of the open operation.
void Mailbox::attach(Early&& early, News& news) {
  const FrameHeader& header = early.header;
  const auto forget = [&] { budget_.give_back(header.nbytes + sizeof(Early)); };
  if (header.agreement != inbox_->agreement) {
    stop(*inbox_, early.peer, header.agreement, news);
    return forget();
  }
  Slot* const slot = slot_of(*inbox_, early.peer, header);
  if (slot == nullptr || !continues(*slot, header)) {
    news.peer = early.peer;
    news.broken = Status(Code::protocol,
                         "operation " + std::to_string(header.seq) + ": rank " + std::to_string(early.peer) +
                             " sent a message of " + std::to_string(header.total) + " bytes (number " +
                             std::to_string(header.tag) + " on channel " + std::to_string(header.channel) +
                             ") that the plan of rank " + std::to_string(config_.rank) + " does not expect",
                         {early.peer});
    return forget();
  }
  slot->arrived += header.nbytes;
  slot->kept.push_back(std::move(early.piece));
  mark_grown(*inbox_, static_cast<std::uint32_t>(slot - inbox_->slots.data()));
}

void Mailbox::parked(int peer, const FrameHeader& header, const Landing& landing) noexcept {
  if (landing.cookie == nullptr) return;
  if (header.type != FrameType::schedule) return matcher_->parked(peer, header, landing);
  const std::lock_guard lock(mutex_);
  static_cast<Flight*>(landing.cookie)->parked = true;
}

bool Mailbox::resumed(int peer, const FrameHeader& header, const Landing& landing) noexcept {
  if (landing.cookie == nullptr) return false;
  if (header.type != FrameType::schedule) return matcher_->resumed(peer, header, landing);
  const std::lock_guard lock(mutex_);
  Flight& flight = *static_cast<Flight*>(landing.cookie);
  flight.parked = false;
  return flight.target != nullptr || flight.kept != nullptr;
}

void Mailbox::poison(std::uint64_t seq, const Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (any_ended_ && seq <= ended_) return;
    if (!poisoned_.emplace(seq, status).second) return;
    if (const auto found = early_.find(seq); found != early_.end()) {
      for (const Early& early : found->second) budget_.give_back(early.piece.nbytes + sizeof(Early));
      early_.erase(found);
    }
    if (inbox_ != nullptr && inbox_->seq == seq) inbox_->stopped.store(true, std::memory_order_release);
  }
  bell_.ring();
}

void Mailbox::open(Inbox& inbox) {
  News news;
  {
    const std::lock_guard lock(mutex_);
    inbox_ = &inbox;
    if (poisoned_.contains(inbox.seq)) inbox.stopped.store(true, std::memory_order_release);
    while (!early_.empty() && early_.begin()->first <= inbox.seq) {
      const bool ours = early_.begin()->first == inbox.seq;
      for (Early& early : early_.begin()->second) {
        if (ours) {
          attach(std::move(early), news);
        } else {
          budget_.give_back(early.piece.nbytes + sizeof(Early));
        }
      }
      early_.erase(early_.begin());
    }
  }
  tell(news);
}

void Mailbox::close(Inbox& inbox) {
  std::unique_lock lock(mutex_);
  inbox_ = nullptr;
  ended_ = inbox.seq;
  any_ended_ = true;
  poisoned_.erase(poisoned_.begin(), poisoned_.upper_bound(inbox.seq));
  for (std::size_t i = 0; i < inbox.plan->receives.size(); ++i) {
    Slot& slot = inbox.slots[i];
    recall(slot.flight, lock);
    for (; slot.has_kept(); ++slot.next_kept) budget_.give_back(slot.kept[slot.next_kept].nbytes + sizeof(Early));
    slot.kept.clear();
    slot.next_kept = 0;
  }
}

void Mailbox::allow(Inbox& inbox, std::uint32_t slot, std::uint64_t upto) {
  bool waiting = false;
  {
    const std::lock_guard lock(mutex_);
    inbox.slots[slot].allowed = upto;
    waiting = inbox.slots[slot].has_kept();
  }
  if (waiting) drain(inbox, slot);
}

void Mailbox::drain(Inbox& inbox, std::uint32_t index) {
  Slot& slot = inbox.slots[index];
  std::unique_lock lock(mutex_);
  while (slot.has_kept()) {
    const Kept& front = slot.kept[slot.next_kept];
    if (front.offset + front.nbytes > slot.allowed) break;
    const Kept piece = std::move(slot.kept[slot.next_kept]);
    ++slot.next_kept;
    slot.draining = true;
    lock.unlock();
    land_kept(inbox, slot, piece);
    budget_.give_back(piece.nbytes + sizeof(Early));
    lock.lock();
    slot.draining = false;
    slot.landed += piece.nbytes;
    slot.seen = true;
    mark_grown(inbox, index);
  }
  if (!slot.has_kept()) {
    slot.kept.clear();
    slot.next_kept = 0;
  }
}

void Mailbox::mark_grown(Inbox& inbox, std::uint32_t slot) {
  if (std::exchange(inbox.slots[slot].grown, true)) return;
  inbox.grown.push_back(slot);
  inbox.any_grown.store(true, std::memory_order_release);
}

void Mailbox::take_grown(Inbox& inbox, std::vector<Grown>& grown) {
  grown.clear();
  const std::lock_guard lock(mutex_);
  for (const std::uint32_t index : inbox.grown) {
    Slot& slot = inbox.slots[index];
    slot.grown = false;
    grown.push_back({index, slot.landed, slot.seen, slot.has_kept()});
  }
  inbox.grown.clear();
  inbox.any_grown.store(false, std::memory_order_relaxed);
}

void Mailbox::stop(Inbox& inbox, int peer, std::uint64_t theirs, News& news) {
  if (inbox.disagreeing_peer >= 0) return;
  inbox.disagreeing_peer = peer;
  inbox.their_agreement = theirs;
  news.peer = peer;
  news.disagreement = true;
  news.seq = inbox.seq;
  news.ours = inbox.agreement;
  news.theirs = theirs;
  inbox.stopped.store(true, std::memory_order_release);
}

Status Mailbox::verdict(Inbox& inbox, bool waited) {
  const std::lock_guard lock(mutex_);
  if (const auto found = poisoned_.find(inbox.seq); found != poisoned_.end()) return found->second;
  if (inbox.disagreeing_peer < 0 || !waited) return {};
  return {Code::mismatch,
          "ranks disagree in operation " + std::to_string(inbox.seq) + " of this group: rank " +
              std::to_string(config_.rank) + " called one with fingerprint " + hex(inbox.agreement) + ", rank " +
              std::to_string(inbox.disagreeing_peer) + " one with " + hex(inbox.their_agreement) +
              "; compare operation, count, dtype, reduction, root and algorithm on both",
          {inbox.disagreeing_peer}};
}

void Mailbox::tell(const News& news) noexcept {
  if (news.disagreement) listener_.on_disagreement(news.peer, news.seq, news.ours, news.theirs);
  if (!news.broken.ok()) listener_.on_broken(news.broken);
  if (news.disagreement || !news.broken.ok()) bell_.ring();
}

}  // namespace pycomm
