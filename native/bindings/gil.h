// Letting go of the GIL and taking it back, also while Python ends.
//
// Until 3.14, CPython ends a daemon thread that wants the GIL when the interpreter has begun to finalize: by
// pthread_exit, which unwinds the thread's stack. Through our frames that would be std::terminate (destructors are
// noexcept) or reference counts changed without the GIL. So the thread stays where it is, as CPython lets it from 3.14
// on; the process is about to end. To ask whether Python is finalizing before taking the GIL would not do: the thread
// may wait for the GIL while finalizing begins.
#pragma once

#include <cxxabi.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <utility>

namespace pycomm::bindings {

// Calls what takes the GIL, or runs Python code, which takes it back now and then. `call` owns no Python object: what
// its frames own they would let go of.
template <typename Call>
decltype(auto) unless_python_ends(Call&& call) {
  try {
    return std::forward<Call>(call)();
  } catch (const abi::__forced_unwind&) {
    for (;;) ::pause();  // never left: neither destructors nor the interpreter are touched any more
  }
}

inline void take_gil_back(PyThreadState* state) noexcept {
  unless_python_ends([state] { PyEval_RestoreThread(state); });
}

// Releases the GIL for its lifetime.
class GilRelease {
 public:
  GilRelease() noexcept : state_(PyEval_SaveThread()) {}
  ~GilRelease() { take_gil_back(state_); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace pycomm::bindings
