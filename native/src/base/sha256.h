// SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), for the handshake. Not meant for bulk data.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace pycomm {

using Digest = std::array<std::uint8_t, 32>;

// Incremental hash: update any number of times, then finish once.
class Sha256 {
 public:
  Sha256() noexcept;
  void update(const void* data, std::size_t nbytes) noexcept;
  void update(std::string_view text) noexcept { update(text.data(), text.size()); }
  Digest finish() noexcept;

 private:
  void compress(const std::uint8_t* block) noexcept;

  std::array<std::uint32_t, 8> state_;
  std::array<std::uint8_t, 64> block_;
  std::uint64_t nbytes_ = 0;
};

Digest sha256(std::string_view data) noexcept;
Digest hmac_sha256(std::string_view key, std::string_view data) noexcept;

// Compares in time that does not depend on where the two differ.
bool same_digest(const Digest& a, const Digest& b) noexcept;

}  // namespace pycomm
