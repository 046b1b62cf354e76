// Random bytes of the kernel, for nonces and names.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace pycomm {

// Fills `out` with random bytes. Ends the process when the kernel has none to give: nothing secret can go on then.
void random_bytes(void* out, std::size_t nbytes) noexcept;

std::uint64_t random_u64() noexcept;

// `nbytes` random bytes as 2 * nbytes hexadecimal digits.
std::string random_hex(std::size_t nbytes);

}  // namespace pycomm
