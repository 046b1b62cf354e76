// Matching of point-to-point messages: the mailbox's other half. See point_to_point.h for the rules.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "executor/flight.h"
#include "pycomm/mailbox.h"
#include "pycomm/point_to_point.h"
#include "pycomm/status.h"
#include "pycomm/transport.h"

namespace pycomm {

// Fields without a comment are set when the request is posted and constant from then on; the others are under the
// matcher's lock unless atomic.
struct PendingMessage {
  bool is_send = false;
  int peer = -1;  // destination, or the source that is wanted
  int tag = 0;
  DType dtype = DType::uint8;
  std::byte* data = nullptr;  // a send only reads it
  std::size_t nbytes = 0;
  std::uint64_t seq = 0;  // sends: number of the message, unique for this rank in this group

  std::atomic<bool> finished{false};  // status and source are constant from then on
  Status status;
  int source = -1;

  Lent lent{0};              // sends: frames not copied out yet
  bool posting = false;      // sends: a thread is handing frames to the transport
  std::size_t landed = 0;    // receives: bytes
  Flight* flight = nullptr;  // receives: payload on its way into `data`
};

// Thread-safe throughout.
class Matcher {
 public:
  Matcher(const MailboxConfig& config, Budget& budget) : config_(config), budget_(budget) {}

  // The Receiver's part; a failed `broken` means that the group must fail.
  Landing landing(int peer, const FrameHeader& header, Status& broken);
  void landed(int peer, const FrameHeader& header, const Landing& landing);
  void parked(int peer, const FrameHeader& header, const Landing& landing);
  bool resumed(int peer, const FrameHeader& header, const Landing& landing);

  std::uint64_t next_seq() noexcept { return seq_.fetch_add(1, std::memory_order_relaxed) + 1; }
  FrameHeader frame(FrameType type, const PendingMessage& message) const noexcept;

  // Takes over a send whose frame has been posted (eager).
  void sent(const Request& request);
  // Takes over a long send; the caller then posts its request frame, with the counter returned.
  Lent& announce(const Request& request);
  // Delivers a send to this rank itself.
  void send_to_self(const Request& request);
  void receive(const Request& request);
  // Ends an unfinished request; `unsend` takes its frames back from the transport (called without the lock).
  void cancel(const Request& request, const Status& cause, const std::function<void()>& unsend);

  // Posts what matching has made due, through `post(peer, header, payload, lent)`, and ends sends that are copied out.
  // True when anything moved. One thread at a time.
  template <typename Post>
  bool flush(Post&& post) {
    return busy_.load(std::memory_order_acquire) && flush_slow(std::function<PostFn>(post));
  }
  std::size_t pending() const noexcept { return pending_.load(std::memory_order_acquire); }

 private:
  using PostFn = void(int peer, const FrameHeader& header, const void* payload, Lent& lent);

  // A message without a receive.
  struct Unexpected {
    int source = -1;
    int tag = 0;
    DType dtype = DType::uint8;
    std::uint64_t seq = 0;
    std::size_t total = 0;
    bool announced = false;  // long: nothing but the envelope is here
    OwnBytes data;           // eager
    std::size_t landed = 0;
    Request claimed;    // a receive that waits for the rest of it
    Request self_send;  // a send of this rank to itself
    std::size_t cost = 0;
  };
  using Arrived = std::shared_ptr<Unexpected>;
  // Messages and receives of one tag, each in order; at most one of the two has an entry for a given source.
  struct Bucket {
    std::deque<Request> posted;
    std::deque<Arrived> arrived;
  };
  // The eager message whose frames are coming in from one source; neither: nobody wants it.
  struct Arriving {
    Request receive;
    Arrived unexpected;
  };
  // A frame that is due: an envelope, or (send) all the data of a message.
  struct Due {
    int peer = -1;
    FrameHeader header{};
    Request send;
  };

  bool flush_slow(const std::function<PostFn>& post);
  Landing eager(int peer, const FrameHeader& header, Status& broken);
  void request(int peer, const FrameHeader& header, Status& broken);
  Landing data(int peer, const FrameHeader& header);
  void granted(int peer, const FrameHeader& header);
  void refused(int peer, const FrameHeader& header);
  Request match_posted(int peer, int tag);
  void tidy(std::unordered_map<int, Bucket>::iterator bucket);
  Arrived make_unexpected(int peer, const FrameHeader& header, Status& broken);
  Landing into(const Request& request, std::size_t offset);
  void grant(const Request& receive, int source, std::uint64_t seq);
  void refuse(const Request& receive, int source, std::uint64_t seq);
  bool agrees(const Request& receive, int source, DType dtype, std::size_t nbytes);
  void settle_self(const Request& receive, const Request& send);
  void finish(const Request& request, Status status, int source = -1);
  void due(Due&& due);
  void forget(const Unexpected& message) noexcept { budget_.give_back(message.cost); }

  const MailboxConfig& config_;
  Budget& budget_;
  std::atomic<std::uint64_t> seq_{0};
  std::atomic<std::size_t> pending_{0};
  std::atomic<bool> busy_{false};  // due_ or sending_ is not empty
  Lent envelopes_{0};              // frames without payload: nobody waits for them

  std::mutex mutex_;
  FlightPool flights_;
  std::unordered_map<int, Bucket> buckets_;                   // by tag
  std::map<int, Arriving> arriving_;                          // by source
  std::map<std::uint64_t, Request> announced_;                // long sends without an answer, by seq
  std::map<std::pair<int, std::uint64_t>, Request> granted_;  // receives whose data comes, by (source, seq)
  std::deque<Due> due_;
  std::vector<Request> sending_;  // frames posted, not copied out
};

}  // namespace pycomm
