// The shortest way from Python to a flat collective: a C function without argument objects, for blocking calls on NumPy
// arrays that need neither planning nor conversion. Whatever is not that simple is left to the long way.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "group/group.h"

namespace pycomm::bindings {

// A callable (kind: int, send, recv, op: str | int, root: int, timeout_s: float | None) -> bool. True: done. False:
// nothing has been done, the call is not that simple (or is wrong, which the long way will explain). Raises the
// operation's failure.
pybind11::object make_direct(const std::shared_ptr<Group>& group);

}  // namespace pycomm::bindings
