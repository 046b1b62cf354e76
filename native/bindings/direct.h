// The shortest way from Python to a flat collective: a C function without argument objects, for blocking calls on NumPy
// arrays, or on plain memory, that need neither planning nor conversion. Whatever is not that simple is left to the
// long way.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "group/group.h"

namespace pycomm::bindings {

// A callable (kind: int, send, recv, op: str | int, root: int, timeout_s: float | None) -> bool. True: done. False:
// nothing has been done, the call is not that simple (or is wrong, which the long way will explain). Raises the
// operation's failure. `by_address` makes it (kind, dtype: int, send: address, send_count, recv: address, recv_count,
// op, root, timeout_s): contiguous memory that the caller vouches for.
pybind11::object make_direct(const std::shared_ptr<Group>& group, bool by_address);

// The arguments of such a call by address, bound; false when the call is not that simple.
bool bind_addresses(const Group& group, PyObject* const* args, FlatCall& call, double& timeout_s);

}  // namespace pycomm::bindings
