// Opening a connection to a rank from the reactor: tries, tries again, proves itself, hands the connection over.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/socket.h"
#include "net/handshake.h"
#include "net/reactor.h"
#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

struct DialConfig {
  std::vector<Address> targets;  // in order of preference
  Hello hello;
  std::string secret;
  Deadline deadline;
  // Gets the connection and the index of its target, or the reason; once, on the reactor thread.
  std::function<void(Result<UniqueFd>, std::size_t)> done;
};

// Reactor thread only. Refused, reset and unanswered attempts are repeated with growing pauses up to the deadline; a
// wrong secret is final at once. A refused abstract unix address is not tried again: no such name is in reach.
void dial(Reactor& reactor, DialConfig config);

}  // namespace pycomm
