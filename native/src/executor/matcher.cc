#include "executor/matcher.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace pycomm {
namespace {

const Landing kForget{};

// Names as in pycomm/types.py.
const char* dtype_name(DType dtype) noexcept {
  static constexpr const char* kNames[] = {"float64",     "float32", "float16", "bfloat16", "float8_e4m3fn",
                                           "float8_e5m2", "int8",    "int16",   "int32",    "int64",
                                           "uint8",       "uint16",  "uint32",  "uint64",   "bool"};
  return kNames[static_cast<std::size_t>(dtype)];
}

std::string described(std::size_t nbytes, DType dtype) {
  return std::to_string(nbytes / itemsize(dtype)) + " elements of " + dtype_name(dtype);
}

Status differs(int src, int dst, int tag, const std::string& sent, const std::string& wanted) {
  return {Code::mismatch,
          "message from rank " + std::to_string(src) + " to rank " + std::to_string(dst) + " with tag " +
              std::to_string(tag) + ": rank " + std::to_string(src) + " sends " + sent + ", rank " +
              std::to_string(dst) + " receives " + wanted + "; make both sides equal",
          {src, dst}};
}

bool serves(const Request& receive, int source) noexcept {
  return receive->peer == kAnySource || receive->peer == source;
}

}  // namespace

FrameHeader Matcher::frame(FrameType type, const PendingMessage& message) const noexcept {
  FrameHeader header{};
  header.magic = kFrameMagic;
  header.type = type;
  header.dtype = message.dtype;
  header.channel = type == FrameType::data ? kDataChannel : kEnvelopeChannel;
  header.group = config_.group;
  header.src = static_cast<std::uint32_t>(config_.rank);
  header.seq = message.seq;
  header.nbytes = type == FrameType::eager ? message.nbytes : 0;
  header.total = message.nbytes;
  header.tag = message.tag;
  return header;
}

// ---------------------------------------------------------------------------------------------------- arriving frames

Landing Matcher::landing(int peer, const FrameHeader& header, Status& broken) {
  const std::lock_guard lock(mutex_);
  switch (header.type) {
    case FrameType::eager:
      return eager(peer, header, broken);
    case FrameType::data:
      return data(peer, header);
    case FrameType::request:
      request(peer, header, broken);
      return kForget;
    case FrameType::grant:
      granted(peer, header);
      return kForget;
    case FrameType::refuse:
      refused(peer, header);
      return kForget;
    case FrameType::schedule:
      break;
  }
  return kForget;
}

Landing Matcher::eager(int peer, const FrameHeader& header, Status& broken) {
  Arriving& arriving = arriving_[peer];
  if (header.total > kEagerLimit) {
    broken = Status(Code::protocol,
                    "rank " + std::to_string(peer) + " sent a message of " + std::to_string(header.total) +
                        " bytes to rank " + std::to_string(config_.rank) + " without asking; the limit is " +
                        std::to_string(kEagerLimit),
                    {peer});
    return kForget;
  }
  if (header.offset == 0) {
    arriving = {};
    if (const Request receive = match_posted(peer, header.tag)) {
      if (agrees(receive, peer, header.dtype, header.total)) arriving.receive = receive;
    } else {
      arriving.unexpected = make_unexpected(peer, header, broken);
      if (arriving.unexpected == nullptr) return kForget;
      arriving.unexpected->data = own_bytes(header.total);
      if (arriving.unexpected->data == nullptr) {
        broken = Status(Code::resource, "no memory for a message of " + std::to_string(header.total) + " bytes");
        forget(*std::exchange(arriving.unexpected, nullptr));
        return kForget;
      }
      buckets_[header.tag].arrived.push_back(arriving.unexpected);
    }
  }
  const std::size_t end = header.offset + header.nbytes;
  if (arriving.receive != nullptr && end <= arriving.receive->nbytes) return into(arriving.receive, header.offset);
  if (arriving.unexpected == nullptr || end > arriving.unexpected->total) return kForget;
  Flight& flight = flights_.take();
  flight.target = arriving.unexpected.get();
  return {arriving.unexpected->data.get() + header.offset, nullptr, nullptr, 1, &flight};
}

void Matcher::request(int peer, const FrameHeader& header, Status& broken) {
  if (const Request receive = match_posted(peer, header.tag)) {
    if (agrees(receive, peer, header.dtype, header.total)) {
      grant(receive, peer, header.seq);
    } else {
      refuse(receive, peer, header.seq);
    }
  } else if (const Arrived message = make_unexpected(peer, header, broken)) {
    message->announced = true;
    buckets_[header.tag].arrived.push_back(message);
  }
}

Landing Matcher::data(int peer, const FrameHeader& header) {
  const auto found = granted_.find({peer, header.seq});
  if (found == granted_.end() || header.total != found->second->nbytes) return kForget;
  return into(found->second, header.offset);
}

void Matcher::granted(int peer, const FrameHeader& header) {
  const auto found = announced_.find(header.seq);
  if (found == announced_.end() || found->second->peer != peer) return;
  Due data{peer, frame(FrameType::data, *found->second), std::move(found->second)};
  announced_.erase(found);
  due(std::move(data));
}

void Matcher::refused(int peer, const FrameHeader& header) {
  const auto found = announced_.find(header.seq);
  if (found == announced_.end() || found->second->peer != peer) return;
  const Request send = std::move(found->second);
  announced_.erase(found);
  finish(send, differs(config_.rank, peer, send->tag, described(send->nbytes, send->dtype),
                       described(header.total, header.dtype)));
}

void Matcher::landed(int peer, const FrameHeader& header, const Landing& landing) {
  const std::lock_guard lock(mutex_);
  Flight& flight = *static_cast<Flight*>(landing.cookie);
  void* const target = flight.target;
  flights_.give_back(flight);
  if (target == nullptr) return;
  if (header.type == FrameType::data) {
    const auto found = granted_.find({peer, header.seq});
    const Request receive = found->second;
    receive->flight = nullptr;
    receive->landed += header.nbytes;
    if (receive->landed < receive->nbytes) return;
    granted_.erase(found);
    return finish(receive, Status(), peer);
  }
  Arriving& arriving = arriving_[peer];
  if (const Request receive = arriving.receive) {
    receive->flight = nullptr;
    receive->landed += header.nbytes;
    if (receive->landed < receive->nbytes) return;
    arriving = {};
    return finish(receive, Status(), peer);
  }
  const Arrived message = arriving.unexpected;
  message->landed += header.nbytes;
  if (message->landed < message->total) return;
  arriving = {};
  if (const Request receive = std::move(message->claimed)) {
    std::memcpy(receive->data, message->data.get(), message->total);
    forget(*message);
    finish(receive, Status(), peer);
  }
}

void Matcher::parked(int /*peer*/, const FrameHeader& /*header*/, const Landing& landing) {
  const std::lock_guard lock(mutex_);
  static_cast<Flight*>(landing.cookie)->parked = true;
}

bool Matcher::resumed(int /*peer*/, const FrameHeader& /*header*/, const Landing& landing) {
  const std::lock_guard lock(mutex_);
  Flight& flight = *static_cast<Flight*>(landing.cookie);
  flight.parked = false;
  return flight.target != nullptr;
}

// ------------------------------------------------------------------------------------------------------ under the lock

// Takes the first posted receive that wants a message of this source and tag.
Request Matcher::match_posted(int peer, int tag) {
  const auto bucket = buckets_.find(tag);
  if (bucket == buckets_.end()) return nullptr;
  auto& posted = bucket->second.posted;
  const auto found = std::find_if(posted.begin(), posted.end(), [&](const Request& r) { return serves(r, peer); });
  if (found == posted.end()) return nullptr;
  Request receive = std::move(*found);
  posted.erase(found);
  tidy(bucket);
  return receive;
}

// Programs that count their tags upwards must not leave a bucket behind for each.
void Matcher::tidy(std::unordered_map<int, Bucket>::iterator bucket) {
  constexpr std::size_t kWorthKeeping = 64;
  if (buckets_.size() > kWorthKeeping && bucket->second.posted.empty() && bucket->second.arrived.empty())
    buckets_.erase(bucket);
}

Matcher::Arrived Matcher::make_unexpected(int peer, const FrameHeader& header, Status& broken) {
  const std::size_t cost = sizeof(Unexpected) + (header.type == FrameType::eager ? header.total : 0);
  if (!budget_.take(cost)) {
    broken = Status(Code::resource, "messages that arrived at rank " + std::to_string(config_.rank) +
                                        " before it called recv would exceed " + std::to_string(budget_.limit) +
                                        " bytes; receive earlier or raise the limit");
    return nullptr;
  }
  auto message = std::make_shared<Unexpected>();
  message->source = peer;
  message->tag = header.tag;
  message->dtype = header.dtype;
  message->seq = header.seq;
  message->total = header.total;
  message->cost = cost;
  return message;
}

Landing Matcher::into(const Request& request, std::size_t offset) {
  Flight& flight = flights_.take();
  flight.target = request.get();
  request->flight = &flight;
  return {request->data == nullptr ? nullptr : request->data + offset, nullptr, nullptr, 1, &flight};
}

void Matcher::grant(const Request& receive, int source, std::uint64_t seq) {
  granted_[{source, seq}] = receive;
  Due answer{source, frame(FrameType::grant, *receive), nullptr};
  answer.header.seq = seq;
  due(std::move(answer));
}

void Matcher::refuse(const Request& receive, int source, std::uint64_t seq) {
  Due answer{source, frame(FrameType::refuse, *receive), nullptr};
  answer.header.seq = seq;
  due(std::move(answer));
}

// Whether a message is what the receive wants; if not, the receive is over.
bool Matcher::agrees(const Request& receive, int source, DType dtype, std::size_t nbytes) {
  if (receive->nbytes == nbytes && receive->dtype == dtype) return true;
  finish(
      receive,
      differs(source, config_.rank, receive->tag, described(nbytes, dtype), described(receive->nbytes, receive->dtype)),
      source);
  return false;
}

void Matcher::settle_self(const Request& receive, const Request& send) {
  if (agrees(receive, config_.rank, send->dtype, send->nbytes)) {
    if (send->nbytes != 0) std::memcpy(receive->data, send->data, send->nbytes);
    finish(receive, Status(), config_.rank);
    finish(send, Status());
  } else {
    finish(send, receive->status);
  }
}

void Matcher::finish(const Request& request, Status status, int source) {
  request->status = std::move(status);
  request->source = source;
  request->finished.store(true, std::memory_order_release);
  pending_.fetch_sub(1, std::memory_order_release);
}

void Matcher::due(Due&& due) {
  due_.push_back(std::move(due));
  busy_.store(true, std::memory_order_release);
}

// -------------------------------------------------------------------------------------------------------- local calls

void Matcher::sent(const Request& request) {
  const std::lock_guard lock(mutex_);
  pending_.fetch_add(1, std::memory_order_relaxed);
  if (request->lent.load(std::memory_order_acquire) == 0) return finish(request, Status());
  sending_.push_back(request);
  busy_.store(true, std::memory_order_release);
}

Lent& Matcher::announce(const Request& request) {
  const std::lock_guard lock(mutex_);
  pending_.fetch_add(1, std::memory_order_relaxed);
  announced_.emplace(request->seq, request);
  envelopes_.fetch_add(1, std::memory_order_relaxed);
  return envelopes_;
}

void Matcher::send_to_self(const Request& request) {
  const std::lock_guard lock(mutex_);
  pending_.fetch_add(1, std::memory_order_relaxed);
  if (const Request receive = match_posted(config_.rank, request->tag)) return settle_self(receive, request);
  const auto message = std::make_shared<Unexpected>();
  message->source = config_.rank;
  message->tag = request->tag;
  message->self_send = request;
  buckets_[request->tag].arrived.push_back(message);
}

void Matcher::receive(const Request& request) {
  const std::lock_guard lock(mutex_);
  pending_.fetch_add(1, std::memory_order_relaxed);
  const auto entry = buckets_.try_emplace(request->tag).first;
  Bucket& bucket = entry->second;
  const auto found = std::find_if(bucket.arrived.begin(), bucket.arrived.end(),
                                  [&](const Arrived& message) { return serves(request, message->source); });
  if (found == bucket.arrived.end()) {
    bucket.posted.push_back(request);
    return;
  }
  const Arrived message = std::move(*found);
  bucket.arrived.erase(found);
  tidy(entry);
  if (message->self_send != nullptr) return settle_self(request, message->self_send);
  const bool complete = message->announced || message->landed == message->total;
  if (agrees(request, message->source, message->dtype, message->total)) {
    if (message->announced) {
      grant(request, message->source, message->seq);
    } else if (!complete) {
      message->claimed = request;
      return;
    } else {
      if (message->total != 0) std::memcpy(request->data, message->data.get(), message->total);
      finish(request, Status(), message->source);
    }
  } else if (message->announced) {
    refuse(request, message->source, message->seq);
  }
  forget(*message);
}

void Matcher::cancel(const Request& request, const Status& cause, const std::function<void()>& unsend) {
  std::unique_lock lock(mutex_);
  while (request->posting) {
    lock.unlock();
    sched_yield();
    lock.lock();
  }
  recall(request->flight, lock);
  if (request->finished.load(std::memory_order_relaxed)) return;
  if (const auto bucket = buckets_.find(request->tag); bucket != buckets_.end()) {
    std::erase(bucket->second.posted, request);
    std::erase_if(bucket->second.arrived, [&](const Arrived& message) { return message->self_send == request; });
  }
  announced_.erase(request->seq);
  std::erase_if(granted_, [&](const auto& entry) { return entry.second == request; });
  std::erase_if(due_, [&](const Due& entry) { return entry.send == request; });
  std::erase(sending_, request);
  for (auto& [source, arriving] : arriving_) {
    if (arriving.receive == request) arriving.receive = nullptr;
    if (arriving.unexpected == nullptr || arriving.unexpected->claimed != request) continue;
    arriving.unexpected->claimed = nullptr;
    forget(*arriving.unexpected);
  }
  if (request->is_send && request->peer != config_.rank) {
    lock.unlock();
    unsend();
    lock.lock();
  }
  if (!request->finished.load(std::memory_order_relaxed)) finish(request, cause);
}

bool Matcher::flush_slow(const std::function<PostFn>& post) {
  bool moved = false;
  std::unique_lock lock(mutex_);
  while (!due_.empty()) {
    const Due next = std::move(due_.front());
    due_.pop_front();
    moved = true;
    if (next.send == nullptr) {
      envelopes_.fetch_add(1, std::memory_order_relaxed);
      lock.unlock();
      post(next.peer, next.header, nullptr, envelopes_);
      lock.lock();
      continue;
    }
    PendingMessage& send = *next.send;
    send.posting = true;
    sending_.push_back(next.send);
    lock.unlock();
    FrameHeader header = next.header;
    for (header.offset = 0; header.offset < header.total; header.offset += header.nbytes) {
      header.nbytes = std::min<std::uint64_t>(kMaxFramePayload, header.total - header.offset);
      send.lent.fetch_add(1, std::memory_order_relaxed);
      post(next.peer, header, send.data + header.offset, send.lent);
    }
    lock.lock();
    send.posting = false;
  }
  for (std::size_t i = 0; i < sending_.size();) {
    if (sending_[i]->posting || sending_[i]->lent.load(std::memory_order_acquire) != 0) {
      ++i;
      continue;
    }
    finish(sending_[i], Status());
    sending_[i] = std::move(sending_.back());
    sending_.pop_back();
    moved = true;
  }
  busy_.store(!due_.empty() || !sending_.empty(), std::memory_order_release);
  return moved;
}

}  // namespace pycomm
