#include "raise.h"

#include <pybind11/stl.h>

#include "gil.h"

namespace py = pybind11;

namespace pycomm::bindings {
namespace {

const char* exception_name(Code code) noexcept {
  switch (code) {
    case Code::usage:
      return "UsageError";
    case Code::unavailable:
      return "BackendUnavailable";
    case Code::unsupported:
      return "Unsupported";
    case Code::peer_lost:
      return "PeerLost";
    case Code::deadline:
      return "DeadlineExceeded";
    case Code::protocol:
      return "ProtocolError";
    case Code::auth:
      return "AuthError";
    case Code::aborted:
      return "Aborted";
    case Code::mismatch:
      return "Mismatch";
    case Code::resource:
      return "ResourceError";
    case Code::ok:
    case Code::internal:
      break;
  }
  return "InternalError";
}

bool is_comm_error(Code code) noexcept {
  return code == Code::peer_lost || code == Code::deadline || code == Code::protocol || code == Code::auth ||
         code == Code::aborted;
}

void set_error(const Status& status, const std::string& message, const std::string& group, const std::string& operation,
               std::int64_t seq) {
  const py::object type = py::module_::import("pycomm.errors").attr(exception_name(status.code()));
  const py::tuple args = py::make_tuple(message);
  py::dict details;
  if (is_comm_error(status.code()))
    details = py::dict(py::arg("group") = group, py::arg("operation") = operation, py::arg("seq") = seq,
                       py::arg("ranks") = status.ranks());
  const auto error = py::reinterpret_steal<py::object>(
      unless_python_ends([&] { return PyObject_Call(type.ptr(), args.ptr(), details.ptr()); }));
  if (!error) throw py::error_already_set();
  PyErr_SetObject(type.ptr(), error.ptr());
}

}  // namespace

const char* kind_name(Kind kind) noexcept {
  constexpr const char* kNames[] = {
      "allreduce", "allgather",  "reduce_scatter",  "alltoall",  "broadcast", "reduce",   "gather", "scatter",
      "barrier",   "allgatherv", "reduce_scatterv", "alltoallv", "gatherv",   "scatterv", "send",   "recv"};
  const auto i = static_cast<std::size_t>(kind);
  return i < sizeof kNames / sizeof *kNames ? kNames[i] : "operation";
}

void raise_status(const Status& status, const std::string& where) {
  set_error(status, where.empty() ? status.message() : where + ": " + status.message(), "", where, -1);
}

void raise_status(const Status& status, const Group& group, const char* operation) {
  const auto seq = static_cast<std::int64_t>(group.last_seq());
  const std::string message = std::string(operation) + " in group '" + group.name() + "' on rank " +
                              std::to_string(group.rank()) + " of " + std::to_string(group.size()) + ": " +
                              status.message();
  set_error(status, message, group.name(), operation, seq);
}

void throw_status(const Status& status, const std::string& where) {
  raise_status(status, where);
  throw py::error_already_set();
}

void throw_status(const Status& status, const Group& group, const char* operation) {
  raise_status(status, group, operation);
  throw py::error_already_set();
}

SignalWatch::SignalWatch(Group& group) : group_(group), state_(PyEval_SaveThread()) { sleep_hook = {look, this}; }

SignalWatch::~SignalWatch() {
  sleep_hook = {};
  take_gil_back(state_);
}

void SignalWatch::look(void* self) noexcept {
  auto& watch = *static_cast<SignalWatch*>(self);
  if (watch.interrupted_) return;
  take_gil_back(watch.state_);
  watch.interrupted_ = PyErr_CheckSignals() != 0;
  watch.state_ = PyEval_SaveThread();
  if (watch.interrupted_) watch.group_.abort("interrupted by a signal");
}

}  // namespace pycomm::bindings
