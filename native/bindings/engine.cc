#include "bind.h"

namespace pycomm::bindings {

void bind_engine(pybind11::module_& /*module*/) {}

}  // namespace pycomm::bindings
