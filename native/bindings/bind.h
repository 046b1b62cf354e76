// The parts of the Python module, one file each. Only files of this folder include pybind11.
#pragma once

#include <pybind11/pybind11.h>

namespace pycomm::bindings {

void bind_reduce(pybind11::module_& module);
void bind_verify(pybind11::module_& module);
void bind_network(pybind11::module_& module);
void bind_engine(pybind11::module_& module);

}  // namespace pycomm::bindings
