#include "direct.h"

#include <pybind11/numpy.h>

#include <array>
#include <cstring>
#include <exception>

#include "raise.h"

namespace py = pybind11;

namespace pycomm::bindings {
namespace {

constexpr int kTypes = 12;  // element types that NumPy has itself

// Objects that are compared by identity: NumPy's array type, its descriptor singletons, the interned names of the ops.
struct Known {
  PyTypeObject* array_type = nullptr;
  std::array<PyObject*, kTypes> descrs{};
  std::array<DType, kTypes> dtypes{};
  std::array<PyObject*, 11> ops{};
};

const Known& known() {
  static const Known* const kKnown = [] {
    auto* k = new Known;
    constexpr std::pair<const char*, DType> kNames[kTypes] = {
        {"float32", DType::float32}, {"float64", DType::float64}, {"float16", DType::float16}, {"int64", DType::int64},
        {"int32", DType::int32},     {"uint8", DType::uint8},     {"int8", DType::int8},       {"int16", DType::int16},
        {"uint16", DType::uint16},   {"uint32", DType::uint32},   {"uint64", DType::uint64},   {"bool", DType::boolean},
    };
    const py::module_ numpy = py::module_::import("numpy");
    k->array_type = reinterpret_cast<PyTypeObject*>(py::object(numpy.attr("ndarray")).release().ptr());
    for (std::size_t i = 0; i < kTypes; ++i) {
      k->descrs[i] = numpy.attr("dtype")(kNames[i].first).release().ptr();
      k->dtypes[i] = kNames[i].second;
    }
    constexpr const char* kOps[] = {"sum",  "prod", "min",  "max",  "avg", nullptr /* needs a factor */,
                                    "band", "bor",  "bxor", "land", "lor"};
    for (std::size_t i = 0; i < k->ops.size(); ++i)
      k->ops[i] = kOps[i] == nullptr ? nullptr : PyUnicode_InternFromString(kOps[i]);
    return k;
  }();
  return *kKnown;
}

// A NumPy array as the core sees it. Only C-contiguous, writable-where-needed arrays of a known type become one.
struct Array {
  std::byte* data = nullptr;
  std::uint64_t count = 0;
  DType dtype = DType::float32;
  bool writable = false;
};

bool read_array(PyObject* object, Array& out) {
  const Known& k = known();
  if (Py_TYPE(object) != k.array_type) return false;
  const auto* array = py::detail::array_proxy(object);
  constexpr int kReady = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
  if ((array->flags & kReady) == 0) return false;
  std::size_t i = 0;
  while (i < kTypes && k.descrs[i] != array->descr) ++i;
  if (i == kTypes) return false;
  std::uint64_t count = 1;
  for (int d = 0; d < array->nd; ++d) count *= static_cast<std::uint64_t>(array->dimensions[d]);
  out.data = reinterpret_cast<std::byte*>(array->data);
  out.count = count;
  out.dtype = k.dtypes[i];
  out.writable = (array->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0;
  return true;
}

// Names are compared by identity first: literals are interned.
bool read_op(PyObject* object, ReduceOp& out) {
  const Known& k = known();
  if (PyLong_Check(object)) {  // pycomm.ReduceOp
    const long value = PyLong_AsLong(object);
    if (value < 0 || value >= static_cast<long>(k.ops.size()) || k.ops[static_cast<std::size_t>(value)] == nullptr)
      return PyErr_Clear(), false;
    out = static_cast<ReduceOp>(value);
    return true;
  }
  for (const bool by_value : {false, true}) {
    if (by_value && PyUnicode_Check(object) == 0) return false;
    for (std::size_t i = 0; i < k.ops.size(); ++i) {
      if (k.ops[i] == nullptr) continue;
      if (k.ops[i] == object || (by_value && PyUnicode_Compare(k.ops[i], object) == 0)) {
        out = static_cast<ReduceOp>(i);
        return true;
      }
    }
  }
  return false;
}

bool overlap(const Array& a, const Array& b) {
  const std::uint64_t na = a.count * itemsize(a.dtype);
  const std::uint64_t nb = b.count * itemsize(b.dtype);
  return na != 0 && nb != 0 && a.data < b.data + nb && b.data < a.data + na;
}

// Fills `call` for a kind with a send and a recv array; false when the shapes do not fit or the buffers overlap.
bool bind_pair(Kind kind, const Array& send, const Array& recv, std::uint64_t n, std::uint64_t rank, FlatCall& call) {
  if (send.dtype != recv.dtype || !recv.writable) return false;
  std::uint64_t natural = 0;  // where the smaller buffer lies in the larger one when the call is in place
  switch (kind) {
    case Kind::allreduce:
      if (send.count != recv.count) return false;
      call.desc.count = send.count;
      break;
    case Kind::alltoall:
      if (send.count != recv.count || send.count % n != 0) return false;
      call.desc.count = send.count / n;
      break;
    case Kind::allgather:
      if (recv.count != n * send.count) return false;
      call.desc.count = send.count;
      natural = rank * send.count * itemsize(send.dtype);
      if (send.data != recv.data + natural && overlap(send, recv)) return false;
      break;
    case Kind::reduce_scatter:
      if (send.count != n * recv.count) return false;
      call.desc.count = recv.count;
      natural = rank * recv.count * itemsize(recv.dtype);
      if (recv.data != send.data + natural && overlap(send, recv)) return false;
      if (recv.data == send.data + natural && !send.writable) return false;
      break;
    default:
      return false;
  }
  if ((kind == Kind::allreduce || kind == Kind::alltoall) && send.data != recv.data && overlap(send, recv))
    return false;
  call.send = send.data;
  call.recv = recv.data;
  return true;
}

bool supported(DType dtype, ReduceOp op) {
  if (op == ReduceOp::band || op == ReduceOp::bor || op == ReduceOp::bxor) return dtype > DType::float8_e5m2;
  return op != ReduceOp::avg || dtype != DType::boolean;
}

// Whose operation it is and what it is made of, before the buffers are looked at.
struct DirectCall {
  Kind kind = Kind::barrier;
  PyObject* op = nullptr;    // for kinds that reduce
  PyObject* root = nullptr;  // for broadcast
  PyObject* timeout_s = nullptr;
  Array send, recv;  // broadcast: the one buffer twice
};

bool bind(const DirectCall& request, const Group& group, FlatCall& call) {
  call.desc.kind = request.kind;
  call.desc.root = -1;
  if (request.kind == Kind::barrier) return true;
  call.desc.dtype = request.send.dtype;
  if (request.kind == Kind::broadcast) {
    const long root = PyLong_AsLong(request.root);
    if (PyErr_Occurred() != nullptr) return PyErr_Clear(), false;
    if (root < 0 || root >= group.size() || !request.send.writable) return false;
    call.desc.root = static_cast<std::int32_t>(root);
    call.desc.count = request.send.count;
    call.send = request.send.data;
    call.recv = request.send.data;
    return true;
  }
  if (request.kind == Kind::allreduce || request.kind == Kind::reduce_scatter) {
    if (!read_op(request.op, call.desc.op) || !supported(request.send.dtype, call.desc.op)) return false;
  }
  return bind_pair(request.kind, request.send, request.recv, static_cast<std::uint64_t>(group.size()),
                   static_cast<std::uint64_t>(group.rank()), call);
}

bool read_timeout(const DirectCall& request, const Group& group, double& timeout_s) {
  timeout_s = group.timeout_s();
  if (request.timeout_s == Py_None) return true;
  timeout_s = PyFloat_AsDouble(request.timeout_s);
  if (PyErr_Occurred() != nullptr) return PyErr_Clear(), false;
  return timeout_s >= 0;
}

// Performs the request and returns True, or False when the long way has to look at it; NULL with an error set.
PyObject* perform(Group& group, const DirectCall& request) {
  FlatCall call{};
  double timeout_s = 0;
  if (!bind(request, group, call) || !read_timeout(request, group, timeout_s)) Py_RETURN_FALSE;
  Status status;
  {
    const SignalWatch watch(group);
    status = group.run(call, timeout_s);
    if (watch.interrupted()) return nullptr;
  }
  if (status.ok()) Py_RETURN_TRUE;
  raise_status(status, group, kind_name(request.kind));
  return nullptr;
}

// direct(kind, send, recv, op, root, timeout_s): NumPy arrays.
PyObject* perform_arrays(Group& group, PyObject* const* args) {
  DirectCall request{static_cast<Kind>(PyLong_AsLong(args[0])), args[3], args[4], args[5], {}, {}};
  if (request.kind != Kind::barrier) {
    if (!read_array(args[1], request.send)) Py_RETURN_FALSE;
    request.recv = request.send;
    if (args[2] != Py_None && !read_array(args[2], request.recv)) Py_RETURN_FALSE;
  }
  return perform(group, request);
}

// (kind, dtype, send, send_count, recv, recv_count, op, root, timeout_s); throws when they are not numbers.
DirectCall read_addresses(PyObject* const* args) {
  DirectCall request{static_cast<Kind>(PyLong_AsLong(args[0])), args[6], args[7], args[8], {}, {}};
  const auto dtype = static_cast<DType>(PyLong_AsLong(args[1]));
  request.send = {static_cast<std::byte*>(PyLong_AsVoidPtr(args[2])), PyLong_AsUnsignedLongLong(args[3]), dtype, true};
  request.recv = {static_cast<std::byte*>(PyLong_AsVoidPtr(args[4])), PyLong_AsUnsignedLongLong(args[5]), dtype, true};
  if (PyErr_Occurred() != nullptr) throw py::error_already_set();
  return request;
}

// direct_at: addresses of memory that the caller vouches for.
PyObject* perform_addresses(Group& group, PyObject* const* args) { return perform(group, read_addresses(args)); }

// Called from C: no exception may pass.
template <PyObject* (*perform_with)(Group&, PyObject* const*), Py_ssize_t kArgs>
PyObject* direct(PyObject* self, PyObject* const* args, Py_ssize_t nargs) {
  try {
    auto* const group = static_cast<Group*>(PyCapsule_GetPointer(self, nullptr));
    if (group == nullptr || nargs != kArgs || !group->flat_ready()) Py_RETURN_FALSE;
    return perform_with(*group, args);
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
  return nullptr;
}

template <PyObject* (*perform_with)(Group&, PyObject* const*), Py_ssize_t kArgs>
PyMethodDef method(const char* name) {
  PyObject* (*const function)(PyObject*, PyObject* const*, Py_ssize_t) = direct<perform_with, kArgs>;
  return {name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function)), METH_FASTCALL,
          "Perform a simple blocking collective, or return False."};
}

PyMethodDef direct_def = method<perform_arrays, 6>("direct");
PyMethodDef direct_at_def = method<perform_addresses, 9>("direct_at");

}  // namespace

bool bind_addresses(const Group& group, PyObject* const* args, FlatCall& call, double& timeout_s) {
  const DirectCall request = read_addresses(args);
  known();
  return group.flat_ready() && bind(request, group, call) && read_timeout(request, group, timeout_s);
}

py::object make_direct(const std::shared_ptr<Group>& group, bool by_address) {
  known();
  auto* const holder = new std::shared_ptr<Group>(group);
  // The capsule's pointer is the group itself (one load on the hot path); its context keeps the group alive.
  PyObject* const capsule = PyCapsule_New(
      group.get(), nullptr, [](PyObject* c) { delete static_cast<std::shared_ptr<Group>*>(PyCapsule_GetContext(c)); });
  if (capsule == nullptr || PyCapsule_SetContext(capsule, holder) != 0) {
    delete holder;
    throw py::error_already_set();
  }
  const py::object self = py::reinterpret_steal<py::object>(capsule);
  return py::reinterpret_steal<py::object>(PyCFunction_New(by_address ? &direct_at_def : &direct_def, self.ptr()));
}

}  // namespace pycomm::bindings
