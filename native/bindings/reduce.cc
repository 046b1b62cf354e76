#include "bind.h"

namespace pycomm::bindings {

void bind_reduce(pybind11::module_& /*module*/) {}

}  // namespace pycomm::bindings
