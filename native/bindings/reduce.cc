// Local arithmetic for Python: every argument is a flat, contiguous view of bytes, taken as it is and checked.
#include "pycomm/reduce.h"

#include <cstdint>
#include <string>
#include <vector>

#include "bind.h"
#include "gil.h"

namespace py = pybind11;

namespace pycomm::bindings {
namespace {

// The bytes of an object with the buffer protocol, held until the end of the call.
struct Bytes {
  py::buffer_info info;
  char* data;
  std::size_t nbytes;

  Bytes(const py::buffer& buffer, const char* name, bool writable) : info(buffer.request(writable)) {
    const bool flat = info.ndim == 1 && info.itemsize == 1 && (info.size < 2 || info.strides[0] == 1);
    if (!flat) throw py::value_error(std::string(name) + " must be a flat contiguous array of uint8");
    data = static_cast<char*>(info.ptr);
    nbytes = static_cast<std::size_t>(info.size);
  }
};

DType checked_dtype(int dtype) {
  if (dtype < 0 || dtype > static_cast<int>(DType::boolean))
    throw py::value_error("dtype " + std::to_string(dtype) + " is no DType");
  return static_cast<DType>(dtype);
}

ReduceOp checked_op(int op) {
  if (op < 0 || op > static_cast<int>(ReduceOp::lor))
    throw py::value_error("op " + std::to_string(op) + " is no ReduceOp");
  return static_cast<ReduceOp>(op);
}

std::size_t checked_count(const Bytes& out, DType dtype) {
  if (out.nbytes % itemsize(dtype) != 0)
    throw py::value_error("out has " + std::to_string(out.nbytes) + " bytes, not a multiple of the element's " +
                          std::to_string(itemsize(dtype)));
  return out.nbytes / itemsize(dtype);
}

void check_input(const Bytes& out, const Bytes& in) {
  if (in.nbytes != out.nbytes)
    throw py::value_error("an input has " + std::to_string(in.nbytes) + " bytes, out has " +
                          std::to_string(out.nbytes));
  const auto o = reinterpret_cast<std::uintptr_t>(out.data);
  const auto i = reinterpret_cast<std::uintptr_t>(in.data);
  if (o != i && o < i + in.nbytes && i < o + out.nbytes)
    throw py::value_error("out overlaps an input partially; it must be the same memory or apart");
}

[[noreturn]] void refuse(int dtype, int op) {
  throw py::value_error("op " + std::to_string(op) + " is not defined on dtype " + std::to_string(dtype));
}

void py_reduce(const py::buffer& out, const py::buffer& a, const py::buffer& b, int dtype, int op) {
  const Bytes to(out, "out", true);
  const Bytes left(a, "a", false);
  const Bytes right(b, "b", false);
  const std::size_t count = checked_count(to, checked_dtype(dtype));
  check_input(to, left);
  check_input(to, right);
  const ReduceFn fn = reduce_fn(checked_dtype(dtype), checked_op(op));
  if (fn == nullptr) refuse(dtype, op);
  const GilRelease release;
  fn(to.data, left.data, right.data, count);
}

void py_reduce_many(const py::buffer& out, const py::list& inputs, int dtype, int op, int divisor) {
  const Bytes to(out, "out", true);
  const std::size_t count = checked_count(to, checked_dtype(dtype));
  std::vector<Bytes> held;
  std::vector<const void*> pointers;
  held.reserve(inputs.size());
  for (const py::handle& item : inputs) {
    if (!py::isinstance<py::buffer>(item)) throw py::type_error("an input has no buffer protocol");
    held.emplace_back(py::reinterpret_borrow<py::buffer>(item), "an input", false);
    check_input(to, held.back());
    pointers.push_back(held.back().data);
  }
  if (held.empty()) throw py::value_error("inputs is empty");
  const ReduceManyFn fn = reduce_many_fn(checked_dtype(dtype), checked_op(op));
  if (fn == nullptr) refuse(dtype, op);
  const GilRelease release;
  fn(to.data, pointers.data(), static_cast<int>(pointers.size()), count, divisor);
}

void py_scale(const py::buffer& out, const py::buffer& a, int dtype, double factor) {
  const Bytes to(out, "out", true);
  const Bytes from(a, "a", false);
  const std::size_t count = checked_count(to, checked_dtype(dtype));
  check_input(to, from);
  const GilRelease release;
  scale(static_cast<DType>(dtype), to.data, from.data, count, factor);
}

void py_divide(const py::buffer& out, const py::buffer& a, int dtype, int divisor) {
  const Bytes to(out, "out", true);
  const Bytes from(a, "a", false);
  const std::size_t count = checked_count(to, checked_dtype(dtype));
  check_input(to, from);
  if (divisor < 1) throw py::value_error("divisor " + std::to_string(divisor) + " must be at least 1");
  const GilRelease release;
  divide(static_cast<DType>(dtype), to.data, from.data, count, divisor);
}

}  // namespace

void bind_reduce(py::module_& module) {
  module.def("reduce", &py_reduce, py::arg("out"), py::arg("a"), py::arg("b"), py::arg("dtype"), py::arg("op"),
             "out = a (op) b, elementwise, on flat views of bytes.");
  module.def("reduce_many", &py_reduce_many, py::arg("out"), py::arg("inputs"), py::arg("dtype"), py::arg("op"),
             py::arg("divisor") = 1, "out = inputs combined in order and rounded once.");
  module.def("scale", &py_scale, py::arg("out"), py::arg("a"), py::arg("dtype"), py::arg("factor"),
             "out = a * factor.");
  module.def("divide", &py_divide, py::arg("out"), py::arg("a"), py::arg("dtype"), py::arg("divisor"),
             "out = a / divisor, integers toward zero.");
  module.def("isa", &reduce_isa, "Name of the instruction set that local arithmetic uses.");
}

}  // namespace pycomm::bindings
