#include "net/regions.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <fstream>
#include <mutex>
#include <optional>
#include <utility>

#include "base/bytes.h"
#include "base/random.h"
#include "base/socket.h"

namespace pycomm {
namespace {

using What = ControlMessage::Kind;
using Nonce = std::array<std::uint64_t, 2>;

constexpr std::uint32_t kRegionMagic = 0x52435950;  // "PYCR"
constexpr std::size_t kMaxEarly = 4096;

std::uint64_t available_memory() {
  std::ifstream file("/proc/meminfo");
  std::string name;
  std::uint64_t kib = 0;
  std::string unit;
  while (file >> name >> kib) {
    if (name == "MemAvailable:") return kib * 1024;
    std::getline(file, unit);
  }
  return UINT64_MAX;
}

Status no_memory(std::size_t nbytes, const std::string& why) {
  return {Code::resource, "cannot make a shared region of " + std::to_string(nbytes) + " bytes: " + why};
}

// A new region: memory without a name, of fixed size, so that no mapper can be hit by a truncation.
Result<UniqueFd> make_region(std::size_t nbytes) {
  UniqueFd fd(::memfd_create("pycomm-region", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return no_memory(nbytes, errno_text("memfd_create", errno));
  const std::uint64_t available = available_memory();
  if (nbytes > available) return no_memory(nbytes, "only " + std::to_string(available) + " are available");
  if (::ftruncate(fd.get(), static_cast<off_t>(nbytes)) != 0) return no_memory(nbytes, errno_text("ftruncate", errno));
  const int error = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(std::min(nbytes, kReservedRegionBytes)));
  if (error != 0) return no_memory(nbytes, errno_text("posix_fallocate", error));
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    return no_memory(nbytes, errno_text("sealing it", errno));
  return fd;
}

Result<std::byte*> map_region(int fd, std::size_t nbytes) {
  void* base = ::mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) return no_memory(nbytes, errno_text("mmap", errno));
  return static_cast<std::byte*>(base);
}

void mix_in(RegionHeader& header, const Nonce& number) noexcept {
  auto* words = reinterpret_cast<std::uint64_t*>(header.proof_mapper);
  for (std::size_t i = 0; i < number.size(); ++i)
    std::atomic_ref(words[i]).fetch_xor(number[i], std::memory_order_acq_rel);
}

Nonce read_nonce(const std::uint8_t* from) noexcept {
  Nonce nonce;
  auto* words = reinterpret_cast<std::uint64_t*>(const_cast<std::uint8_t*>(from));
  for (std::size_t i = 0; i < nonce.size(); ++i) nonce[i] = std::atomic_ref(words[i]).load(std::memory_order_acquire);
  return nonce;
}

ControlMessage message_of(std::uint32_t group, What kind) {
  ControlMessage message;
  message.group = group;
  message.kind = kind;
  return message;
}

std::string list_of(const std::set<int>& ranks) {
  std::string text;
  for (const int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return text;
}

}  // namespace

void unmap(Regions& regions) noexcept {
  for (std::byte*& base : regions.base) {
    if (base != nullptr) ::munmap(base, regions.nbytes);
    base = nullptr;
  }
}

// One share() under way. Reactor thread only, but for the gate.
class RegionExchange::Round {
 public:
  Round(const Send& send, std::uint32_t group, const std::vector<int>& members, int self, std::size_t nbytes)
      : send_(send), group_(group), members_(members), self_(self) {
    regions_.base.resize(members.size(), nullptr);
    regions_.nbytes = nbytes;
  }
  ~Round() { unmap(regions_); }
  Round(const Round&) = delete;
  Round& operator=(const Round&) = delete;

  Status prepare() {
    Result<UniqueFd> fd = make_region(regions_.nbytes);
    if (!fd.ok()) return fd.status();
    Result<std::byte*> base = map_region(fd->get(), regions_.nbytes);
    if (!base.ok()) return base.status();
    fd_ = std::make_shared<const UniqueFd>(std::move(*fd));
    regions_.base[static_cast<std::size_t>(self_)] = *base;
    RegionHeader& header = regions_.header(self_);
    header.magic = kRegionMagic;
    header.owner = static_cast<std::uint32_t>(self_);
    header.group = group_;
    random_bytes(nonce_.data(), sizeof(nonce_));
    std::memcpy(header.proof_owner, nonce_.data(), sizeof(nonce_));
    return {};
  }

  void begin(const std::vector<bool>& reachable) {
    for (std::size_t i = 0; i < members_.size(); ++i)
      if (reachable[i]) no_offer_.insert(static_cast<int>(i));
    no_echo_ = no_confirm_ = no_offer_;
    ControlMessage offer = message_of(group_, What::region_offer);
    offer.payload = ByteWriter().put(std::uint64_t{regions_.nbytes}).take();
    for (const int member : no_offer_) send(member, offer, fd_);
    check_done();
  }

  void on_message(int peer, const ControlMessage& message, const UniqueFd& fd) {
    const int member = member_of(peer);
    if (member < 0 || finished_) return;
    ByteReader in(message.payload);
    if (message.kind == What::region_offer) return offered(member, in.get<std::uint64_t>(), fd);
    if (message.kind == What::region_echo) return echoed(member, in);
    if (message.kind == What::region_confirm) no_confirm_.erase(member);
    if (message.kind == What::region_refuse) {
      const auto code = std::min(in.get<std::uint8_t>(), static_cast<std::uint8_t>(Code::internal));
      return finish(
          {static_cast<Code>(code), "rank " + std::to_string(member) + " cannot share memory: " + in.text(), {member}});
    }
    check_done();
  }

  void on_lost(int peer, const std::string& why) {
    const int member = member_of(peer);
    if (member >= 0 && waits_for(member))
      finish({Code::peer_lost,
              "rank " + std::to_string(member) + " was lost while the group was set up: " + why,
              {member}});
  }

  // Tells the other members of this host why this rank gives up.
  void refuse(const Status& why) {
    ControlMessage message = message_of(group_, What::region_refuse);
    message.payload = ByteWriter().put(static_cast<std::uint8_t>(why.code())).text(why.message()).take();
    for (int member = 0; member < static_cast<int>(members_.size()); ++member)
      if (member != self_) send(member, message, nullptr);
  }

  // Any thread. Empty when the deadline passed or the group failed first.
  std::optional<Status> wait(Deadline deadline, const Failure& failure) {
    std::unique_lock lock(gate_);
    while (!outcome_ && !deadline.passed() && !failure.failed()) {
      opened_.wait_for(lock, std::chrono::milliseconds(20), [this] { return outcome_.has_value(); });
      // Pending signals of the caller's language are looked at here, as in every other wait.
      if (sleep_hook.call != nullptr) sleep_hook.call(sleep_hook.arg);
    }
    return outcome_;
  }

  Status missing() const {
    std::set<int> ranks = no_offer_;
    if (ranks.empty()) ranks = no_echo_;
    if (ranks.empty()) ranks = no_confirm_;
    return {
        Code::deadline,
        "sharing memory for group " + std::to_string(group_) + " took too long; no answer from rank " + list_of(ranks),
        std::vector<int>(ranks.begin(), ranks.end())};
  }

  Regions take() { return std::exchange(regions_, Regions{}); }

 private:
  int member_of(int peer) const {
    const auto at = std::find(members_.begin(), members_.end(), peer);
    return at == members_.end() ? -1 : static_cast<int>(at - members_.begin());
  }
  bool waits_for(int member) const {
    return no_offer_.count(member) + no_echo_.count(member) + no_confirm_.count(member) != 0;
  }
  void send(int member, const ControlMessage& message, std::shared_ptr<const UniqueFd> fd) {
    send_(members_[static_cast<std::size_t>(member)], message, std::move(fd));
  }

  void offered(int member, std::uint64_t nbytes, const UniqueFd& fd) {
    if (no_offer_.count(member) == 0) return;
    struct stat info {};
    const int seals = ::fcntl(fd.get(), F_GET_SEALS);
    if (nbytes != regions_.nbytes || ::fstat(fd.get(), &info) != 0 || info.st_size != static_cast<off_t>(nbytes) ||
        seals < 0 || (seals & F_SEAL_SHRINK) == 0)
      return give_up({Code::protocol,
                      "its region has " + std::to_string(nbytes) + " bytes, expected " +
                          std::to_string(regions_.nbytes) + "; run the same release on every rank",
                      {member}});
    Result<std::byte*> base = map_region(fd.get(), regions_.nbytes);
    if (!base.ok()) return give_up(base.status());
    regions_.base[static_cast<std::size_t>(member)] = *base;
    no_offer_.erase(member);
    Nonce number;
    random_bytes(number.data(), sizeof(number));
    RegionHeader& header = regions_.header(member);
    const Nonce seen = read_nonce(header.proof_owner);
    mix_in(header, number);
    ControlMessage echo = message_of(group_, What::region_echo);
    echo.payload = ByteWriter().put(seen[0]).put(seen[1]).put(number[0]).put(number[1]).take();
    send(member, echo, nullptr);
    check_done();
  }

  void echoed(int member, ByteReader& in) {
    const Nonce seen = {in.get<std::uint64_t>(), in.get<std::uint64_t>()};
    const Nonce number = {in.get<std::uint64_t>(), in.get<std::uint64_t>()};
    if (no_echo_.erase(member) == 0) return;
    if (!in.complete() || seen != nonce_)
      return give_up({Code::protocol,
                      "rank " + std::to_string(member) +
                          " does not see what this rank wrote to shared memory; disable shared memory",
                      {member}});
    for (std::size_t i = 0; i < number.size(); ++i) numbers_[i] ^= number[i];
    if (!no_echo_.empty()) return;
    if (read_nonce(regions_.header(self_).proof_mapper) != numbers_)
      return give_up({Code::protocol,
                      "what others write to this rank's shared memory does not arrive; disable shared "
                      "memory"});
    for (int i = 0; i < static_cast<int>(members_.size()); ++i)
      if (i != self_) send(i, message_of(group_, What::region_confirm), nullptr);
    check_done();
  }

  void give_up(const Status& why) {
    refuse(why);
    finish(why);
  }
  void check_done() {
    if (no_offer_.empty() && no_echo_.empty() && no_confirm_.empty()) finish({});
  }
  void finish(Status outcome) {
    if (std::exchange(finished_, true)) return;
    const std::lock_guard lock(gate_);
    outcome_ = std::move(outcome);
    opened_.notify_all();
  }

  const Send& send_;
  const std::uint32_t group_;
  const std::vector<int> members_;
  const int self_;
  Regions regions_;
  std::shared_ptr<const UniqueFd> fd_;
  Nonce nonce_{};
  Nonce numbers_{};  // xor of what the mappers say they wrote
  std::set<int> no_offer_;
  std::set<int> no_echo_;
  std::set<int> no_confirm_;
  bool finished_ = false;
  std::mutex gate_;
  std::condition_variable opened_;
  std::optional<Status> outcome_;  // guarded by gate_
};

RegionExchange::RegionExchange(Reactor& reactor, int rank, Send send)
    : reactor_(reactor), rank_(rank), send_(std::move(send)) {}

RegionExchange::~RegionExchange() = default;

Result<Regions> RegionExchange::share(std::uint32_t group, const std::vector<int>& members,
                                      const std::vector<bool>& reachable, std::size_t nbytes, Deadline deadline,
                                      const Failure& failure) {
  const int self = static_cast<int>(std::find(members.begin(), members.end(), rank_) - members.begin());
  const auto round = std::make_shared<Round>(send_, group, members, self, nbytes);
  const Status prepared = nbytes >= sizeof(RegionHeader)
                              ? round->prepare()
                              : Status(Code::internal, "a region must have room for its header");
  if (!prepared.ok()) {
    reactor_.call([&] { round->refuse(prepared); });
    return prepared;
  }
  reactor_.call([&] {
    over_.erase(group);
    rounds_[group] = round;
    round->begin(reachable);
    for (std::size_t i = 0; i < members.size(); ++i)
      if (const auto lost = lost_.find(members[i]); reachable[i] && lost != lost_.end())
        round->on_lost(members[i], lost->second);
    auto early = early_.extract(group);
    if (!early.empty())
      for (Early& one : early.mapped()) round->on_message(one.peer, one.message, one.fd);
  });
  const std::optional<Status> outcome = round->wait(deadline, failure);
  Status status = outcome.value_or(Status());
  Regions regions;
  reactor_.call([&] {
    rounds_.erase(group);
    over_.insert(group);
    if (!outcome) {
      status = failure.failed() ? failure.cause() : round->missing();
      round->refuse(status);
    }
    if (status.ok()) regions = round->take();
  });
  if (!status.ok()) return status;
  return regions;
}

void RegionExchange::on_message(int peer, const ControlMessage& message, UniqueFd fd) {
  if (const auto found = rounds_.find(message.group); found != rounds_.end()) {
    const std::shared_ptr<Round> round = found->second;
    return round->on_message(peer, message, fd);
  }
  if (over_.count(message.group) != 0) return;
  std::vector<Early>& waiting = early_[message.group];
  if (waiting.size() < kMaxEarly) waiting.push_back({peer, message, std::move(fd)});
}

void RegionExchange::on_lost(int peer, const std::string& why) {
  lost_[peer] = why;
  for (const auto& [group, round] : std::map(rounds_)) round->on_lost(peer, why);
}

}  // namespace pycomm
