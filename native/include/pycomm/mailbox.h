// Matching: which memory an arriving frame belongs to. One mailbox per group; the only Receiver that transports know.
//
// Schedule messages are identified by (source, seq, channel, number). The operation that runs has an *inbox* open:
// frames that it allows already land in place, others are kept in memory of the mailbox's own until it does. Frames of
// later operations are kept, frames of earlier ones dropped. Point-to-point frames go to the Matcher.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "pycomm/status.h"
#include "pycomm/transport.h"
#include "pycomm/wait.h"

namespace pycomm {

class FlightPool;
struct Early;
struct Flight;
struct Grown;
struct Inbox;
struct Slot;
class Matcher;

// What the mailbox has to tell the group. Called on the thread that drives a transport, without locks held; must not
// block. `broken` is repeated until the group has failed.
class MailboxListener {
 public:
  virtual ~MailboxListener() = default;
  // The peer's frames of operation seq carry another agreement than ours. The group tells everybody over the control
  // connections, and each mailbox through poison(); the operation waits a moment for that message, which shows both
  // sides.
  virtual void on_disagreement(int peer, std::uint64_t seq, std::uint64_t ours, std::uint64_t theirs) noexcept = 0;
  // A peer broke the protocol or the memory limit is reached: the group must fail.
  virtual void on_broken(const Status& cause) noexcept = 0;
};

// What arrived early and is kept, bytes; shared by all parts of one mailbox.
struct Budget {
  explicit Budget(std::size_t limit_nbytes) : limit(limit_nbytes) {}
  bool take(std::size_t nbytes) noexcept {
    if (used.fetch_add(nbytes, std::memory_order_relaxed) + nbytes <= limit) return true;
    used.fetch_sub(nbytes, std::memory_order_relaxed);
    return false;
  }
  void give_back(std::size_t nbytes) noexcept { used.fetch_sub(nbytes, std::memory_order_relaxed); }
  std::atomic<std::size_t> used{0};
  const std::size_t limit;
};

struct MailboxConfig {
  int rank = 0;
  int nranks = 1;
  std::uint32_t group = 0;
  std::size_t limit_nbytes = std::size_t{1} << 30;  // of what arrived before anyone expected it
};

// Thread-safe throughout.
class Mailbox final : public Receiver {
 public:
  // `bell` (this rank's doorbell) and `listener` outlive the mailbox.
  Mailbox(const MailboxConfig& config, Doorbell& bell, MailboxListener& listener);
  ~Mailbox() override;
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  Landing landing(int peer, const FrameHeader& header) noexcept override;
  void landed(int peer, const FrameHeader& header, const Landing& landing) noexcept override;
  void parked(int peer, const FrameHeader& header, const Landing& landing) noexcept override;
  bool resumed(int peer, const FrameHeader& header, const Landing& landing) noexcept override;
  void returned() noexcept override { bell_.ring(); }

  // Ends operation `seq`, running or to come, with this status; later operations are not touched. The first call for a
  // seq wins; calls for operations that have ended here do nothing. Rings the doorbell.
  void poison(std::uint64_t seq, const Status& status);

  // For the executor. One inbox is open at a time; sequence numbers only grow.
  void open(Inbox& inbox);
  // Withdraws all memory of the inbox: on return nobody writes there any more. Frames of this and earlier operations
  // are dropped from now on.
  void close(Inbox& inbox);
  // Bytes below `upto` of the slot's message may land; lands here and now what was kept of them.
  void allow(Inbox& inbox, std::uint32_t slot, std::uint64_t upto);
  // Lands what was kept of the slot's message and is allowed.
  void drain(Inbox& inbox, std::uint32_t slot);
  // The slots whose messages grew since the last call, into `grown` (cleared first).
  void take_grown(Inbox& inbox, std::vector<Grown>& grown);
  // Why a stopped inbox cannot go on; ok while there is hope (`waited` false) that somebody tells both sides of a
  // disagreement.
  Status verdict(Inbox& inbox, bool waited);

  Matcher& matcher() noexcept { return *matcher_; }
  Budget& budget() noexcept { return budget_; }
  const MailboxConfig& config() const noexcept { return config_; }
  Doorbell& bell() noexcept { return bell_; }

 private:
  struct News;  // what to tell the listener once the lock is free
  Landing schedule_landing(int peer, const FrameHeader& header, News& news);
  Landing keep(const FrameHeader& header, News& news);
  void settle(int peer, const FrameHeader& header, Flight& flight, News& news);
  void attach(Early&& early, News& news);
  void stop(Inbox& inbox, int peer, std::uint64_t theirs, News& news);
  void mark_grown(Inbox& inbox, std::uint32_t slot);
  void tell(const News& news) noexcept;
  Status malformed(int peer, const FrameHeader& header) const;

  const MailboxConfig config_;
  Doorbell& bell_;
  MailboxListener& listener_;
  Budget budget_;
  std::unique_ptr<Matcher> matcher_;

  std::mutex mutex_;
  Inbox* inbox_ = nullptr;   // open now
  std::uint64_t ended_ = 0;  // operations up to here have ended (any_ended_)
  bool any_ended_ = false;
  std::map<std::uint64_t, std::vector<Early>> early_;  // by seq, in order of arrival
  std::map<std::uint64_t, Status> poisoned_;
  std::unique_ptr<FlightPool> flights_;
};

}  // namespace pycomm
