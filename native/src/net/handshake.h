// Mutual proof that both ends of a fresh connection know the job's secret, before anything else is read.
//
//   client                                   server
//     hello: purpose, who, nonce_c    ->
//                                     <-     challenge: nonce_s
//     HMAC(secret, "client" + both)   ->            (the dialling side proves itself first: a stranger who
//                                     <-     verdict, HMAC(secret, "server" + both)    dials learns nothing)
//
// Four frames of 64 bytes. Nonces are fresh, so a recorded handshake is worth nothing later; the labels differ, so one
// side's proof cannot be sent back as the other's; the hello is part of what is proved, so nobody can alter it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

enum class Purpose : std::uint8_t { store = 1, control = 2, data = 3 };

// What the dialling side says it wants.
struct Hello {
  Purpose purpose = Purpose::store;
  std::uint32_t from = 0;      // rank of the dialling side
  std::uint32_t to = 0;        // rank that it believes to dial
  std::uint32_t index = 0;     // which of several connections
  std::uint64_t instance = 0;  // number of the listener it believes to dial: old addresses lead nowhere
};

class Handshake {
 public:
  enum class State : std::uint8_t { reading, writing, done, failed };
  using Accepts = std::function<bool(const Hello&)>;

  static Handshake client(std::string secret, const Hello& hello);
  // `accepts` judges the hello of a side that has proved itself.
  static Handshake server(std::string secret, Accepts accepts);

  // Goes on as far as the non-blocking `fd` allows and says what it waits for. Never reads past the last frame.
  State advance(int fd);
  // Waits on `fd` until done, failed or the deadline.
  Status finish(int fd, Deadline deadline);

  // Valid once failed. auth: the secrets differ; protocol: the other side speaks otherwise; peer_lost: it hung up.
  const Status& why() const noexcept { return why_; }
  const Hello& hello() const noexcept { return hello_; }
  // True once the other side has sent a whole first frame.
  bool spoke() const noexcept { return step_ > Step::server_hello; }

 private:
  using Frame = std::array<char, 64>;
  enum class Step : std::uint8_t {
    client_hello,
    client_challenge,
    client_proof,
    client_verdict,
    server_hello,
    server_challenge,
    server_proof,
    server_verdict,
    over,
  };

  Handshake(std::string secret, Step first) : secret_(std::move(secret)), step_(first) {}
  bool sends() const noexcept;
  void frame_received();
  void hello_received();
  void prove(const char* label, char* out) const;
  bool proved(const char* label, const char* mac) const;
  void start_verdict();
  void verdict_received();
  void fail(Code code, std::string message);

  std::string secret_;
  Step step_;
  Accepts accepts_;
  Hello hello_;
  Frame hello_frame_{};
  Frame challenge_{};
  Frame frame_{};          // the frame under way
  std::size_t moved_ = 0;  // bytes of it
  Status why_;
  Status verdict_;  // server: what to fail with after the verdict is sent; ok when accepted
};

}  // namespace pycomm
