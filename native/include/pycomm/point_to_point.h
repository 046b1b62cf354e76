// Messages between two ranks of a group, by tag: the point-to-point lane.
//
// Up to kEagerLimit bytes a message is sent without asking (eager). A longer one is announced (request), and sent when
// the receiver has a buffer for it (grant): memory stays bounded and two ranks may send to each other at once. Messages
// of one source and tag are received in the order in which they were sent; receives of one tag are served in the order
// in which they were posted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "pycomm/executor.h"
#include "pycomm/status.h"
#include "pycomm/types.h"
#include "pycomm/wait.h"

namespace pycomm {

constexpr std::size_t kEagerLimit = std::size_t{64} * 1024;
constexpr int kAnySource = -1;

struct PendingMessage;
// A send or receive under way. Whoever drops the last copy of an unfinished one must have cancelled it.
using Request = std::shared_ptr<PendingMessage>;

// Thread-safe: any number of threads post and wait at once; one of the waiting drives, the others sleep.
class PointToPoint {
 public:
  explicit PointToPoint(const ExecutorEnv& env) : env_(env) {}

  // Both return at once; the memory stays borrowed until the request is done. A send is done when its memory may be
  // reused. A receive fails with Code::mismatch when the message has another size or dtype, and so does its sender if
  // the message is longer than kEagerLimit; the message is used up and the group stays usable.
  Request post_send(int dst, int tag, const void* data, std::size_t nbytes, DType dtype);
  Request post_recv(int src, int tag, void* data, std::size_t nbytes, DType dtype);

  // Moves what can be moved without waiting; true when anything moved.
  bool progress() noexcept { return env_.progress.drive(); }
  static bool done(const Request& request) noexcept;
  // How a finished request ended, and where a receive's message came from (-1 for sends).
  static Status status(const Request& request);
  static int source(const Request& request) noexcept;
  // Waits for the end of a request. When the deadline passes or the group fails first, the request is cancelled: its
  // memory is free on return. The group fails with the caller, since a message may be lost.
  Status wait(const Request& request, Deadline deadline);
  // Ends an unfinished request with `cause`; on return nobody touches its memory. Does nothing to a finished one.
  void cancel(const Request& request, const Status& cause);
  // Whether anything is under way here: posted and unfinished requests. A worker thread drives while this is not zero.
  std::size_t pending() const noexcept;

 private:
  ExecutorEnv env_;
};

}  // namespace pycomm
