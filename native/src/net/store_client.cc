#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <utility>

#include "net/store.h"

namespace pycomm {

using store_wire::Answer;
using store_wire::Op;
using store_wire::Request;
using store_wire::Response;

namespace {

// Connects and shakes hands once, blocking. `again` tells whether another attempt may help.
Result<UniqueFd> attempt(const Address& target, const std::string& secret, Deadline deadline, bool& again) {
  bool pending = false;
  int error = 0;
  UniqueFd fd = start_connect(target, pending, error);
  again = true;
  if (fd && pending) {
    if (!wait_ready(fd.get(), POLLOUT, deadline)) return Status(Code::deadline, "no answer from " + target.text());
    error = connect_result(fd.get());
  }
  if (error != 0) return Status(Code::unavailable, errno_text("cannot connect to " + target.text(), error));
  tune_tcp(fd.get());
  Handshake shake = Handshake::client(secret, {.purpose = Purpose::store});
  const Status status = shake.finish(fd.get(), deadline);
  if (status.ok()) return fd;
  again = status.code() == Code::peer_lost;
  return status;
}

Status send_request(int fd, Op op, std::uint32_t id, const std::string& key, const std::string& value,
                    Deadline deadline) {
  Request head;
  head.op = op;
  head.id = id;
  head.key_nbytes = static_cast<std::uint32_t>(key.size());
  head.value_nbytes = value.size();
  std::string message(reinterpret_cast<const char*>(&head), sizeof(head));
  message += key;
  message += value;
  return send_exact(fd, message.data(), message.size(), deadline);
}

Status receive_answer(int fd, Response& head, std::string& value, Deadline deadline) {
  PYCOMM_TRY(recv_exact(fd, &head, sizeof(head), deadline));
  if (head.magic != store_wire::kMagic || head.value_nbytes > kMaxStoreValue)
    return {Code::protocol, "the store sent a malformed answer"};
  value.resize(head.value_nbytes);
  return recv_exact(fd, value.data(), value.size(), deadline);
}

Status check_key(const std::string& key) {
  if (!key.empty() && key.size() <= kMaxStoreKey) return {};
  return {Code::usage,
          "a store key has 1 to " + std::to_string(kMaxStoreKey) + " bytes, got " + std::to_string(key.size())};
}

}  // namespace

Result<std::unique_ptr<StoreClient>> StoreClient::connect(const std::string& host, std::uint16_t port,
                                                          const std::string& secret, Deadline deadline, int family) {
  std::unique_ptr<StoreClient> client(new StoreClient);
  client->name_ = host + ":" + std::to_string(port);
  client->secret_ = secret;
  Result<std::vector<Address>> targets = resolve(host, port, family);
  if (!targets.ok()) return targets.status();
  client->targets_ = std::move(*targets);
  Result<UniqueFd> fd = client->dial(deadline);
  if (!fd.ok()) return fd.status();
  Result<Address> local = local_address(fd->get());
  if (!local.ok()) return local.status();
  client->local_ = *local;
  client->give_back(std::move(*fd));
  return client;
}

Result<UniqueFd> StoreClient::dial(Deadline deadline) {
  double pause_s = 0.005;
  for (;;) {
    Status last;
    for (const Address& target : targets_) {
      bool again = false;
      Result<UniqueFd> fd = attempt(target, secret_, deadline, again);
      if (fd.ok()) return fd;
      last = fd.status();
      if (!again) return Status(last.code(), "store at " + name_ + ": " + last.message());
    }
    if (deadline.passed())
      return Status(Code::deadline, "the store at " + name_ + " did not answer in time (" + last.message() +
                                        "); is rank 0 up, and is the address right on this machine?");
    const double left_s = deadline.at_ns == INT64_MAX ? pause_s : static_cast<double>(deadline.at_ns - now_ns()) * 1e-9;
    std::this_thread::sleep_for(std::chrono::duration<double>(std::clamp(left_s, 0.0, pause_s)));
    pause_s = std::min(2 * pause_s, 0.25);
  }
}

Result<UniqueFd> StoreClient::acquire(Deadline deadline) {
  {
    const std::lock_guard lock(mutex_);
    if (closed_) return Status(Code::usage, "the store client is closed");
    if (!idle_.empty()) {
      UniqueFd fd = std::move(idle_.back());
      idle_.pop_back();
      return fd;
    }
  }
  return dial(deadline);
}

void StoreClient::give_back(UniqueFd fd) {
  const std::lock_guard lock(mutex_);
  if (!closed_ && idle_.size() < 4) idle_.push_back(std::move(fd));
}

void StoreClient::close() {
  const std::lock_guard lock(mutex_);
  closed_ = true;
  idle_.clear();
}

Status StoreClient::set(const std::string& key, const std::string& value, Deadline deadline) {
  PYCOMM_TRY(check_key(key));
  if (value.size() > kMaxStoreValue)
    return {Code::usage, "a store value has at most " + std::to_string(kMaxStoreValue) + " bytes, got " +
                             std::to_string(value.size())};
  Result<UniqueFd> fd = acquire(deadline);
  if (!fd.ok()) return fd.status();
  Response answer;
  std::string nothing;
  Status status = send_request(fd->get(), Op::set, 0, key, value, deadline);
  if (status.ok()) status = receive_answer(fd->get(), answer, nothing, deadline);
  if (!status.ok()) return {status.code(), "store at " + name_ + ", set '" + key + "': " + status.message()};
  give_back(std::move(*fd));
  if (answer.answer == Answer::conflict)
    return {Code::usage, "store key '" + key + "' already holds another value; keys are written once"};
  if (answer.answer == Answer::full)
    return {Code::resource, "the store at " + name_ + " is full (" + std::to_string(kMaxStoreTotal) + " bytes)"};
  return {};
}

Result<std::string> StoreClient::get(const std::string& key, Deadline deadline) {
  Result<std::vector<std::optional<std::string>>> values = get_many({key}, deadline);
  if (!values.ok()) return values.status();
  if (!values->front())
    return Status(Code::deadline, "store at " + name_ + ": key '" + key + "' was not written in time");
  return std::move(*values->front());
}

Result<std::vector<std::optional<std::string>>> StoreClient::get_many(const std::vector<std::string>& keys,
                                                                      Deadline deadline) {
  for (const std::string& key : keys) PYCOMM_TRY(check_key(key));
  std::vector<std::optional<std::string>> values(keys.size());
  Result<UniqueFd> fd = acquire(deadline);
  if (!fd.ok()) return fd.status();
  Status status;
  // Requests are small and answers may be large: a bounded number under way keeps both sides from filling up.
  constexpr std::size_t kUnderWay = 256;
  std::size_t asked = 0;
  for (std::size_t got = 0; got < keys.size() && status.ok(); ++got) {
    for (; asked < keys.size() && asked < got + kUnderWay && status.ok(); ++asked)
      status = send_request(fd->get(), Op::get, static_cast<std::uint32_t>(asked), keys[asked], {}, deadline);
    Response answer;
    std::string value;
    if (status.ok()) status = receive_answer(fd->get(), answer, value, deadline);
    if (!status.ok()) break;
    if (answer.id >= keys.size() || values[answer.id]) {
      status = Status(Code::protocol, "the store answered a question that was not asked");
    } else {
      values[answer.id] = std::move(value);
    }
  }
  // A connection with answers outstanding is not used again; the server forgets its questions with it.
  if (status.ok()) {
    give_back(std::move(*fd));
  } else if (status.code() != Code::deadline) {
    return Status(status.code(), "store at " + name_ + ": " + status.message());
  }
  return values;
}

}  // namespace pycomm
