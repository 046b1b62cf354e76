// Little-endian records built and taken apart field by field, with every length checked against what is left.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace pycomm {

static_assert(std::endian::native == std::endian::little,
              "the wire format is the memory format of little-endian hosts");

class ByteWriter {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> ByteWriter& put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    return *this;
  }
  ByteWriter& text(std::string_view value) {
    put(static_cast<std::uint32_t>(value.size()));
    out_.append(value);
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// Reading past the end yields zeroes and makes ok() false; it never reads outside the view.
class ByteReader {
 public:
  explicit ByteReader(std::string_view in) : in_(in) {}
  template <typename T>
  requires std::is_arithmetic_v<T> T get() {
    T value{};
    if (in_.size() < sizeof(T)) {
      ok_ = false;
      in_ = {};
      return value;
    }
    std::memcpy(&value, in_.data(), sizeof(T));
    in_.remove_prefix(sizeof(T));
    return value;
  }
  std::string text() {
    const auto length = get<std::uint32_t>();
    if (length > in_.size()) {
      ok_ = false;
      in_ = {};
      return {};
    }
    std::string value(in_.substr(0, length));
    in_.remove_prefix(length);
    return value;
  }
  bool ok() const { return ok_; }
  // All was there and nothing is left over.
  bool complete() const { return ok_ && in_.empty(); }

 private:
  std::string_view in_;
  bool ok_ = true;
};

}  // namespace pycomm
