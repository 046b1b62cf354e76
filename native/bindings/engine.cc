// Store, context, group, plan and work: the native engine as Python sees it (pycomm/backends/native.py).
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <future>
#include <memory>
#include <string>
#include <thread>

#include "base/socket.h"
#include "bind.h"
#include "direct.h"
#include "gil.h"
#include "group/group.h"
#include "net/context.h"
#include "net/store.h"
#include "raise.h"

namespace py = pybind11;

namespace pycomm::bindings {
namespace {

using Indices = py::array_t<std::int64_t, py::array::c_style>;
using Rows = py::array_t<std::int32_t, py::array::c_style>;

// A flat contiguous uint8 view, as pycomm/backends/base.py promises; checked all the same.
struct Bytes {
  std::byte* data = nullptr;
  std::uint64_t nbytes = 0;
};

Bytes view(const py::object& object, bool writable) {
  if (object.is_none()) return {};
  if (!py::isinstance<py::array>(object)) throw py::type_error("a buffer must be a NumPy array");
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (array.itemsize() != 1 || !(array.flags() & py::array::c_style) || (writable && !array.writeable()))
    throw py::type_error("a buffer must be a contiguous uint8 array, writable where it receives");
  return {static_cast<std::byte*>(const_cast<void*>(array.data())), static_cast<std::uint64_t>(array.nbytes())};
}

template <typename T>
T take(Result<T> result, const std::string& where) {
  if (!result.ok()) throw_status(result.status(), where);
  return std::move(*result);
}

// Waits outside the GIL in slices, so that a signal ends the wait within a tenth of a second. `step` waits for the
// seconds it is given and returns Code::deadline when it has to be asked again.
template <typename Step>
Status wait_in_slices(double timeout_s, const Step& step, bool& timed_out) {
  const Deadline deadline = Deadline::after(timeout_s);
  timed_out = false;
  for (;;) {
    Status status;
    bool passed = false;
    bool finished = false;
    {
      const GilRelease release;
      status = step(0.1, finished);
      passed = deadline.passed();
    }
    if (finished) return status;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    if (passed) {
      timed_out = true;
      return status;
    }
  }
}

// Runs what may block for long on a thread of its own and looks for signals meanwhile. When a handler raises (Ctrl-C),
// that thread is left to its deadline, and what it makes is dropped.
template <typename Task>
auto interruptibly(Task task) -> decltype(task()) {
  auto shared = std::make_shared<std::packaged_task<decltype(task())()>>(std::move(task));
  auto outcome = shared->get_future();
  std::thread([shared] { (*shared)(); }).detach();
  for (;;) {
    std::future_status state;
    {
      const GilRelease release;
      state = outcome.wait_for(std::chrono::milliseconds(100));
    }
    if (state == std::future_status::ready) return outcome.get();
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

// ---- work ----------------------------------------------------------------------------------------------------------

// A collective or message under way, with what it borrows.
class PyWork {
 public:
  PyWork(std::shared_ptr<Group> group, std::shared_ptr<Work> work, Kind kind, py::object keep)
      : group_(std::move(group)), work_(std::move(work)), kind_(kind), keep_(std::move(keep)) {}
  PyWork(std::shared_ptr<Group> group, Message message, Kind kind, py::object keep)
      : group_(std::move(group)), message_(std::move(message)), kind_(kind), keep_(std::move(keep)) {}

  // Memory that the core may still write to must outlive the operation, also when nobody waits for it.
  ~PyWork() {
    if (settled()) return;
    const bool is_work = work_ != nullptr;
    const GilRelease release;
    if (is_work) {
      static_cast<void>(group_->wait(*work_, 1e9));
    } else {
      static_cast<void>(group_->wait(message_, 1e9));
    }
  }
  PyWork(const PyWork&) = delete;
  PyWork& operator=(const PyWork&) = delete;

  bool done() const { return work_ != nullptr ? work_->done() : group_->done(message_); }

  int wait(double timeout_s) {
    bool timed_out = false;
    const Status status = wait_in_slices(
        timeout_s,
        [this](double slice_s, bool& finished) {
          Status s = work_ != nullptr ? group_->wait(*work_, slice_s) : group_->wait(message_, slice_s);
          finished = settled() || s.code() != Code::deadline;  // a closed group settles nothing any more
          return s;
        },
        timed_out);
    if (!status.ok()) throw_status(status, *group_, kind_name(kind_));
    keep_ = py::none();
    return work_ != nullptr ? -1 : PointToPoint::source(message_.request);
  }

 private:
  // Nobody touches the borrowed memory any more. A message without request was refused.
  bool settled() const {
    if (work_ != nullptr) return work_->done();
    return message_.request == nullptr || PointToPoint::done(message_.request);
  }

  std::shared_ptr<Group> group_;
  std::shared_ptr<Work> work_;
  Message message_;
  Kind kind_;
  py::object keep_;
};

// ---- plan ----------------------------------------------------------------------------------------------------------

struct PyPlan {
  std::shared_ptr<const BoundPlan> bound;
  std::uint64_t digest = 0;
};

PyPlan bind_plan(int kind, int rank, int nranks, int root, int pieces, bool in_place, std::size_t item_nbytes,
                 const Rows& ops, const Indices& input, const Indices& output, const Indices& scratch,
                 std::uint64_t digest) {
  PlanSpec spec;
  spec.kind = static_cast<Kind>(kind);
  spec.rank = rank;
  spec.nranks = nranks;
  spec.root = root;
  spec.pieces = pieces;
  spec.in_place = in_place;
  spec.itemsize = item_nbytes;
  spec.ops = {ops.data(), static_cast<std::size_t>(ops.size())};
  const std::array<const Indices*, 3> spaces{&input, &output, &scratch};
  for (std::size_t i = 0; i < spaces.size(); ++i)
    spec.boundaries[i] = {spaces[i]->data(), static_cast<std::size_t>(spaces[i]->size())};
  Result<BoundPlan> bound = [&spec] {
    const GilRelease release;
    return BoundPlan::bind(spec);
  }();
  return {std::make_shared<const BoundPlan>(take(std::move(bound), "binding a schedule")), digest};
}

// ---- group ---------------------------------------------------------------------------------------------------------

std::uint64_t hash_counts(const std::int64_t* counts, std::size_t n) {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (std::size_t i = 0; i < n; ++i) {
    hash = (hash ^ static_cast<std::uint64_t>(counts[i])) * 0x100000001b3ULL;
    hash ^= hash >> 29;
  }
  return hash == 0 ? 1 : hash;
}

class PyGroup {
 public:
  PyGroup(std::shared_ptr<Context> context, std::uint32_t id, std::string name, std::vector<int> members, int rank,
          double timeout_s, bool use_flat, bool single_copy) {
    GroupConfig config{id, std::move(name), std::move(members), rank, timeout_s, use_flat, single_copy};
    const std::string where = "opening group '" + config.name + "'";
    Result<std::shared_ptr<Group>> group =
        interruptibly([context = std::move(context), config] { return Group::open(context, config); });
    group_ = take(std::move(group), where);
  }

  // The last one to let go closes the group, which may wait for ranks that are threads of this process.
  ~PyGroup() {
    const GilRelease release;
    group_.reset();
  }
  PyGroup(const PyGroup&) = delete;
  PyGroup& operator=(const PyGroup&) = delete;

  Group& group() { return *group_; }
  py::object direct(bool by_address) { return make_direct(group_, by_address); }

  py::object collective(int kind, int dtype, int op, int root, std::uint64_t count, const py::object& send,
                        const py::object& recv, const py::object& counts, double factor, bool round_once,
                        const py::object& plan, double timeout_s, bool blocking) {
    FlatCall call{};
    call.desc.kind = static_cast<Kind>(kind);
    call.desc.dtype = static_cast<DType>(dtype);
    call.desc.op = static_cast<ReduceOp>(op);
    call.desc.flags = round_once ? 1 : 0;
    call.desc.root = root;
    call.desc.count = count;
    call.desc.factor = call.desc.op == ReduceOp::premul_sum ? factor : 0;
    call.send = view(send, false).data;
    call.recv = view(recv, true).data;
    py::object counts_keep = py::none();
    if (!counts.is_none()) {
      const auto table = py::cast<Indices>(counts);
      counts_keep = table;
      call.counts = table.data();
      call.desc.counts = hash_counts(table.data(), static_cast<std::size_t>(table.size()));
    }
    std::shared_ptr<const BoundPlan> bound;
    if (!plan.is_none()) {
      const auto& p = py::cast<const PyPlan&>(plan);
      bound = p.bound;
      call.desc.plan = p.digest;
    } else if (!group_->flat_ready()) {
      throw_status({Code::unsupported, "this group does not share memory; give a schedule"}, *group_,
                   kind_name(call.desc.kind));
    }
    if (blocking) {
      run(call, std::move(bound), timeout_s);
      return py::none();
    }
    std::shared_ptr<Work> work;
    {
      const GilRelease release;
      work = group_->launch(call, std::move(bound), timeout_s);
    }
    return py::cast(
        std::make_unique<PyWork>(group_, std::move(work), call.desc.kind, py::make_tuple(send, recv, counts_keep)));
  }

  // As direct_at, without waiting: a work, or None when the call is not that simple. `keep` owns the memory.
  py::object launch_at(const py::object& keep, const py::args& args) {
    constexpr std::size_t kArgs = 9;
    if (args.size() != kArgs) throw py::type_error("launch_at takes keep and what direct_at takes");
    FlatCall call{};
    double timeout_s = 0;
    if (!bind_addresses(*group_, PySequence_Fast_ITEMS(args.ptr()), call, timeout_s)) return py::none();
    std::shared_ptr<Work> work;
    {
      const GilRelease release;
      work = group_->launch(call, nullptr, timeout_s);
    }
    return py::cast(std::make_unique<PyWork>(group_, std::move(work), call.desc.kind, keep));
  }

  py::object message(bool is_send, int peer, int tag, const py::object& buffer, int dtype, double timeout_s,
                     bool courier) {
    const Bytes bytes = view(buffer, !is_send);
    Message m;
    {
      const GilRelease release;
      m = is_send ? group_->send(peer, tag, bytes.data, bytes.nbytes, static_cast<DType>(dtype), timeout_s, courier)
                  : group_->recv(peer, tag, bytes.data, bytes.nbytes, static_cast<DType>(dtype), timeout_s, courier);
    }
    return py::cast(std::make_unique<PyWork>(group_, std::move(m), is_send ? Kind::send : Kind::recv, buffer));
  }

  void abort(const std::string& reason) {
    const GilRelease release;
    group_->abort(reason);
  }
  void close() {
    const GilRelease release;
    group_->close();
  }

 private:
  void run(const FlatCall& call, std::shared_ptr<const BoundPlan> plan, double timeout_s) {
    Status status;
    bool interrupted = false;
    {
      const SignalWatch watch(*group_);
      status = group_->run(call, std::move(plan), timeout_s);
      interrupted = watch.interrupted();
    }
    if (interrupted) throw py::error_already_set();
    if (!status.ok()) throw_status(status, *group_, kind_name(call.desc.kind));
  }

  std::shared_ptr<Group> group_;
};

// "10.0.0.1" or "fd00::1": the address of an interface of this machine.
std::string interface_host(const std::string& interface, int family) {
  const std::string text = take(interface_address(interface, family), "looking for an address of this machine").text();
  const std::string host = text.substr(0, text.rfind(':'));
  return host.front() == '[' ? host.substr(1, host.size() - 2) : host;
}

void bind_store(py::module_& module) {
  module.def("interface_host", &interface_host, py::arg("interface"), py::arg("family"));
  py::class_<StoreServer>(module, "StoreServer")
      .def(py::init([](const std::string& host, std::uint16_t port, const std::string& secret, int family) {
             auto server = StoreServer::start(host, port, secret, family);
             return take(std::move(server), "starting the store on " + host + ":" + std::to_string(port));
           }),
           py::arg("host"), py::arg("port"), py::arg("secret"), py::arg("family"))
      .def_property_readonly("port", &StoreServer::port);
  py::class_<StoreClient>(module, "StoreClient")
      .def(py::init([](const std::string& host, std::uint16_t port, const std::string& secret, int family,
                       double timeout_s) {
             auto client = interruptibly([host, port, secret, family, timeout_s] {
               return StoreClient::connect(host, port, secret, Deadline::after(timeout_s), family);
             });
             return take(std::move(client), "connecting to the store at " + host + ":" + std::to_string(port));
           }),
           py::arg("host"), py::arg("port"), py::arg("secret"), py::arg("family"), py::arg("timeout_s"))
      .def(
          "set",
          [](StoreClient& self, const std::string& key, const py::bytes& value, double timeout_s) {
            const std::string copy = value;
            Status status = [&] {
              const GilRelease release;
              return self.set(key, copy, Deadline::after(timeout_s));
            }();
            if (!status.ok()) throw_status(status, "store");
          },
          py::arg("key"), py::arg("value"), py::arg("timeout_s"))
      .def(
          "get",
          [](StoreClient& self, const std::string& key, double timeout_s) {
            auto value = [&] {
              const GilRelease release;
              return self.get(key, Deadline::after(timeout_s));
            }();
            return py::bytes(take(std::move(value), "store"));
          },
          py::arg("key"), py::arg("timeout_s"))
      .def("close", &StoreClient::close, py::call_guard<GilRelease>());
}

void bind_context(py::module_& module) {
  py::class_<Context, std::shared_ptr<Context>>(module, "Context")
      .def(py::init([](int rank, int size, const std::string& store_host, std::uint16_t store_port,
                       const std::string& secret, const std::string& interface, int family, double timeout_s,
                       bool allow_shared_memory, int tcp_connections) {
             ContextConfig config;
             config.rank = rank;
             config.size = size;
             config.store_host = store_host;
             config.store_port = store_port;
             config.secret = secret;
             config.interface = interface;
             config.family = family;
             config.timeout_s = timeout_s;
             config.allow_shared_memory = allow_shared_memory;
             config.tcp_connections = tcp_connections;
             auto context = interruptibly([config] { return Context::connect(config); });
             return take(std::move(context), "joining the job as rank " + std::to_string(rank));
           }),
           py::arg("rank"), py::arg("size"), py::arg("store_host"), py::arg("store_port"), py::arg("secret"),
           py::arg("interface"), py::arg("family"), py::arg("timeout_s"), py::arg("allow_shared_memory"),
           py::arg("tcp_connections"))
      .def("goodbye", &Context::goodbye, py::call_guard<GilRelease>());
}

}  // namespace

void bind_engine(py::module_& module) {
  bind_store(module);
  bind_context(module);
  py::class_<PyWork>(module, "Work").def("done", &PyWork::done).def("wait", &PyWork::wait, py::arg("timeout_s"));
  const py::class_<PyPlan> plan(module, "Plan");  // opaque: only handed back
  module.def("bind_plan", &bind_plan, py::arg("kind"), py::arg("rank"), py::arg("nranks"), py::arg("root"),
             py::arg("pieces"), py::arg("in_place"), py::arg("itemsize"), py::arg("ops"), py::arg("input"),
             py::arg("output"), py::arg("scratch"), py::arg("digest"));
  py::class_<PyGroup>(module, "Group")
      .def(py::init<std::shared_ptr<Context>, std::uint32_t, std::string, std::vector<int>, int, double, bool, bool>(),
           py::arg("context"), py::arg("id"), py::arg("name"), py::arg("members"), py::arg("rank"),
           py::arg("timeout_s"), py::arg("use_flat"), py::arg("single_copy"))
      .def_property_readonly("flat_ready", [](PyGroup& self) { return self.group().flat_ready(); })
      .def_property_readonly("transports", [](PyGroup& self) { return self.group().transports(); })
      .def_property_readonly("last_seq", [](PyGroup& self) { return self.group().last_seq(); })
      .def("direct", &PyGroup::direct, py::arg("by_address") = false)
      .def("launch_at", &PyGroup::launch_at, py::arg("keep"))
      .def("collective", &PyGroup::collective, py::arg("kind"), py::arg("dtype"), py::arg("op"), py::arg("root"),
           py::arg("count"), py::arg("send"), py::arg("recv"), py::arg("counts"), py::arg("factor"),
           py::arg("round_once"), py::arg("plan"), py::arg("timeout_s"), py::arg("blocking"))
      .def("message", &PyGroup::message, py::arg("is_send"), py::arg("peer"), py::arg("tag"), py::arg("buffer"),
           py::arg("dtype"), py::arg("timeout_s"), py::arg("courier"))
      .def("abort", &PyGroup::abort, py::arg("reason"))
      .def("close", &PyGroup::close);
}

}  // namespace pycomm::bindings
