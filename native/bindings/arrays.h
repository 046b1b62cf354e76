// Flat arrays between Python and the core: lent on the way in, handed over on the way out, never converted.
#pragma once

#include <pybind11/numpy.h>

#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace pycomm::bindings {

namespace py = pybind11;

// A contiguous array of T, held until the end of the call; never converted.
template <typename T>
class View {
 public:
  View(const py::buffer& buffer, const char* name) : info_(buffer.request()) {
    if (!info_.item_type_is_equivalent_to<T>())
      throw py::type_error(std::string(name) + " must have " + std::to_string(8 * sizeof(T)) + "-bit signed elements");
    py::ssize_t stride = info_.itemsize;
    for (auto i = info_.shape.size(); i-- > 0; stride *= info_.shape[i])
      if (info_.shape[i] > 1 && info_.strides[i] != stride && info_.size > 0)
        throw py::value_error(std::string(name) + " must be contiguous");
  }
  std::span<const T> span() const { return {static_cast<const T*>(info_.ptr), static_cast<std::size_t>(info_.size)}; }

 private:
  py::buffer_info info_;
};

template <typename T>
py::array_t<T> to_array(std::vector<T>&& values) {
  auto* held = new std::vector<T>(std::move(values));
  const py::capsule owner(held, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(held->size()), held->data(), owner);
}

}  // namespace pycomm::bindings
