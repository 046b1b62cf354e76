#include "base/random.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

namespace pycomm {

void random_bytes(void* out, std::size_t nbytes) noexcept {
  auto* at = static_cast<unsigned char*>(out);
  while (nbytes > 0) {
    const ssize_t got = ::getrandom(at, nbytes, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      std::abort();
    }
    at += got;
    nbytes -= static_cast<std::size_t>(got);
  }
}

std::uint64_t random_u64() noexcept {
  std::uint64_t value = 0;
  random_bytes(&value, sizeof(value));
  return value;
}

std::string random_hex(std::size_t nbytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::vector<unsigned char> raw(nbytes);
  random_bytes(raw.data(), raw.size());
  std::string text;
  text.reserve(2 * nbytes);
  for (const unsigned char byte : raw) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace pycomm
