// How the core's outcomes become Python exceptions, and how a thread that waits in the core hears of signals.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

#include "group/group.h"
#include "pycomm/status.h"

namespace pycomm::bindings {

// Lower-case name of a collective, as the public API spells it.
const char* kind_name(Kind kind) noexcept;

// Sets the Python error for a failed status; `where` says in which operation, "" when in none. The GIL is held.
void raise_status(const Status& status, const std::string& where = "");
void raise_status(const Status& status, const Group& group, const char* operation);
// The same, then throws, for functions that pybind11 wraps.
[[noreturn]] void throw_status(const Status& status, const std::string& where = "");
[[noreturn]] void throw_status(const Status& status, const Group& group, const char* operation);

// Releases the GIL for its lifetime. While the thread sleeps in the core, pending signals are looked at ten times a
// second; when a handler raises (Ctrl-C), the group is aborted, which ends the wait, and interrupted() is true: the
// Python error is then already set.
class SignalWatch {
 public:
  explicit SignalWatch(Group& group);
  ~SignalWatch();
  SignalWatch(const SignalWatch&) = delete;
  SignalWatch& operator=(const SignalWatch&) = delete;
  bool interrupted() const noexcept { return interrupted_; }

 private:
  static void look(void* self) noexcept;
  Group& group_;
  PyThreadState* state_;
  bool interrupted_ = false;
};

}  // namespace pycomm::bindings
