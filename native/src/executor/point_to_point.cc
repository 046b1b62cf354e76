#include "pycomm/point_to_point.h"

#include <string>
#include <utility>

#include "executor/matcher.h"

namespace pycomm {
namespace {

Request make_request(bool is_send, int peer, int tag, void* data, std::size_t nbytes, DType dtype) {
  auto request = std::make_shared<PendingMessage>();
  request->is_send = is_send;
  request->peer = peer;
  request->tag = tag;
  request->dtype = dtype;
  request->data = static_cast<std::byte*>(data);
  request->nbytes = nbytes;
  return request;
}

Status late(const PendingMessage& request, int rank) {
  const std::string what = std::to_string(request.nbytes) + " bytes with tag " + std::to_string(request.tag);
  const std::string self = "rank " + std::to_string(rank) + ": ";
  if (request.peer == kAnySource)
    return {Code::deadline, self + "recv of " + what + " from any rank: no message before the deadline"};
  const std::string peer = "rank " + std::to_string(request.peer);
  return {Code::deadline,
          self + (request.is_send ? "send of " + what + " to " + peer + ": not taken before the deadline"
                                  : "recv of " + what + " from " + peer + ": no message before the deadline"),
          {request.peer}};
}

}  // namespace

Request PointToPoint::post_send(int dst, int tag, const void* data, std::size_t nbytes, DType dtype) {
  Matcher& matcher = env_.mailbox.matcher();
  // Sends only read their memory; the field is shared with receives.
  Request request = make_request(true, dst, tag, const_cast<void*>(data), nbytes, dtype);
  request->seq = matcher.next_seq();
  if (dst == env_.mailbox.config().rank) {
    matcher.send_to_self(request);
    env_.mailbox.bell().ring();
  } else if (nbytes <= kEagerLimit) {
    request->lent.store(1, std::memory_order_relaxed);
    env_.progress.to(dst).post_send(matcher.frame(FrameType::eager, *request), data, request->lent);
    matcher.sent(request);
  } else {
    Lent& lent = matcher.announce(request);
    env_.progress.to(dst).post_send(matcher.frame(FrameType::request, *request), nullptr, lent);
  }
  return request;
}

Request PointToPoint::post_recv(int src, int tag, void* data, std::size_t nbytes, DType dtype) {
  Request request = make_request(false, src, tag, data, nbytes, dtype);
  env_.mailbox.matcher().receive(request);
  // It may have matched a send to self that another thread waits for, or owe an answer for a sleeping driver to post.
  env_.mailbox.bell().ring();
  return request;
}

bool PointToPoint::done(const Request& request) noexcept { return request->finished.load(std::memory_order_acquire); }

Status PointToPoint::status(const Request& request) { return done(request) ? request->status : Status(); }

int PointToPoint::source(const Request& request) noexcept { return done(request) ? request->source : -1; }

std::size_t PointToPoint::pending() const noexcept { return env_.mailbox.matcher().pending(); }

Status PointToPoint::wait(const Request& request, Deadline deadline) {
  const auto ready = [&] {
    if (done(request)) return true;
    progress();
    return done(request);
  };
  switch (wait_until(ready, env_.mailbox.bell(), env_.failure, deadline, env_.patience)) {
    case Waited::ready:
      break;
    case Waited::deadline:
      cancel(request, late(*request, env_.mailbox.config().rank));
      break;
    case Waited::failed:
      cancel(request, env_.failure.cause());
      break;
  }
  return request->status;
}

void PointToPoint::cancel(const Request& request, const Status& cause) {
  env_.mailbox.matcher().cancel(request, cause, [&] {
    Endpoint& endpoint = env_.progress.to(request->peer);
    for (const FrameType type : {FrameType::eager, FrameType::request, FrameType::data})
      endpoint.cancel(type, request->seq);
  });
  env_.mailbox.bell().ring();
}

}  // namespace pycomm
