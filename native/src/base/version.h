// Build identity: lets Python notice a stale core.
#pragma once

namespace pycomm {
// Version of the interface between pycomm/ and the compiled core; raised with every change of it (see pycomm/core.py).
constexpr int kCoreVersion = 3;
}  // namespace pycomm
