// The Python module pycomm._native. Imported by pycomm/core.py and nobody else.
#include "base/version.h"
#include "bind.h"

PYBIND11_MODULE(_native, module) {
  module.doc() = "The C++ core of pycomm.";
  module.attr("core_version") = pycomm::kCoreVersion;
  pycomm::bindings::bind_reduce(module);
  pycomm::bindings::bind_verify(module);
  pycomm::bindings::bind_network(module);
  pycomm::bindings::bind_engine(module);
}
