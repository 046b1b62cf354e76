// Outcome of an operation of the core. One code per exception that C++ can cause; the binding turns it into the
// exception. Creating a failed Status allocates; a noexcept function that must not allocate returns a Code instead.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace pycomm {

enum class Code : std::uint8_t {
  ok,
  usage,
  unavailable,
  unsupported,
  peer_lost,
  deadline,
  protocol,
  auth,
  aborted,
  mismatch,
  resource,
  internal,
};

class [[nodiscard]] Status {
 public:
  Status() noexcept = default;
  Status(Code code, std::string message, std::vector<int> ranks = {})
      : detail_(std::make_shared<const Detail>(Detail{code, std::move(message), std::move(ranks)})) {}

  bool ok() const noexcept { return detail_ == nullptr; }
  Code code() const noexcept { return detail_ ? detail_->code : Code::ok; }
  // What failed, what was expected and found, what to do next. Empty when ok.
  const std::string& message() const noexcept {
    static const std::string kNone;
    return detail_ ? detail_->message : kNone;
  }
  // The ranks at fault, numbered as in the group; empty when unknown.
  const std::vector<int>& ranks() const noexcept {
    static const std::vector<int> kNone;
    return detail_ ? detail_->ranks : kNone;
  }

 private:
  struct Detail {
    Code code;
    std::string message;
    std::vector<int> ranks;
  };
  std::shared_ptr<const Detail> detail_;
};

// A value or the Status that explains its absence.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::make_unique<T>(std::move(value))) {}  // NOLINT: implicit on purpose
  Result(Status status) : status_(std::move(status)) {}               // NOLINT: implicit on purpose
  bool ok() const noexcept { return value_ != nullptr; }
  const Status& status() const noexcept { return status_; }
  T& operator*() noexcept { return *value_; }
  T* operator->() noexcept { return value_.get(); }

 private:
  std::unique_ptr<T> value_;
  Status status_;
};

}  // namespace pycomm

// Returns from the enclosing function when `expr` is a failed Status.
#define PYCOMM_TRY(expr)                                                  \
  do {                                                                    \
    if (::pycomm::Status status_ = (expr); !status_.ok()) return status_; \
  } while (false)
