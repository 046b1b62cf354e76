#include "bind.h"

namespace pycomm::bindings {

void bind_verify(pybind11::module_& /*module*/) {}

}  // namespace pycomm::bindings
