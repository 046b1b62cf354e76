// The rendezvous store: a small table of keys written once, by which the ranks of a job find one another.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/socket.h"
#include "net/acceptor.h"
#include "net/reactor.h"
#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

constexpr std::size_t kMaxStoreKey = 4096;
constexpr std::size_t kMaxStoreValue = std::size_t{64} << 20;
constexpr std::size_t kMaxStoreTotal = std::size_t{1} << 30;

// Serves the table on a thread of its own until destroyed. Thread-safe. Strangers, garbage and floods change nothing.
class StoreServer {
 public:
  // Listens on the first address of `host`; port 0 lets the kernel choose. Codes: unavailable (name), resource (port).
  static Result<std::unique_ptr<StoreServer>> start(const std::string& host, std::uint16_t port,
                                                    const std::string& secret, int family = 0);
  ~StoreServer();
  StoreServer(const StoreServer&) = delete;
  StoreServer& operator=(const StoreServer&) = delete;

  // Ends the service and every connection. Twice is fine.
  void close();
  std::uint16_t port() const noexcept { return port_; }
  // How many connections were turned away so far. Blocks for an instant.
  AcceptorCounts turned_away();

 private:
  class Table;
  class Connection;
  StoreServer() = default;

  std::uint16_t port_ = 0;
  std::shared_ptr<Acceptor> acceptor_;
  std::shared_ptr<Table> table_;
  std::unique_ptr<Reactor> reactor_;  // last: its thread uses the others
};

// One rank's access to the store. Thread-safe: calls that wait do not hold up others. After a fork the child makes its
// own.
class StoreClient {
 public:
  // Blocks until the server answers; repeats refused attempts up to the deadline. Codes: unavailable (unknown host),
  // auth (wrong secret, at once), protocol (something else listens there), deadline.
  static Result<std::unique_ptr<StoreClient>> connect(const std::string& host, std::uint16_t port,
                                                      const std::string& secret, Deadline deadline, int family = 0);

  // Writes a key. The same value again is fine; another value is an error (usage): keys are written once.
  Status set(const std::string& key, const std::string& value, Deadline deadline = Deadline::after(60));
  // Waits for a key. Code::deadline names it when it does not come.
  Result<std::string> get(const std::string& key, Deadline deadline);
  // Waits for all keys; at the deadline, those that have not come are empty.
  Result<std::vector<std::optional<std::string>>> get_many(const std::vector<std::string>& keys, Deadline deadline);
  // Ends idle connections; later calls fail. Calls under way end by themselves.
  void close();
  // This machine's address on the way to the store.
  const Address& local() const noexcept { return local_; }

 private:
  StoreClient() = default;
  Result<UniqueFd> acquire(Deadline deadline);
  void give_back(UniqueFd fd);
  Result<UniqueFd> dial(Deadline deadline);

  std::string name_;  // host:port, for messages
  std::vector<Address> targets_;
  std::string secret_;
  Address local_;
  std::mutex mutex_;
  std::vector<UniqueFd> idle_;  // guarded by mutex_
  bool closed_ = false;         // guarded by mutex_
};

// The wire form, shared by both sides.
namespace store_wire {

constexpr std::uint32_t kMagic = 0x53435950;  // "PYCS"
enum class Op : std::uint8_t { set = 1, get = 2 };
enum class Answer : std::uint8_t { fine = 1, conflict = 2, full = 3 };

struct Request {
  std::uint32_t magic = kMagic;
  Op op = Op::get;
  std::uint8_t zero[3] = {};
  std::uint32_t id = 0;
  std::uint32_t key_nbytes = 0;
  std::uint64_t value_nbytes = 0;
};
struct Response {
  std::uint32_t magic = kMagic;
  Answer answer = Answer::fine;
  std::uint8_t zero[3] = {};
  std::uint32_t id = 0;
  std::uint32_t zero_too = 0;
  std::uint64_t value_nbytes = 0;
};
static_assert(sizeof(Request) == 24 && sizeof(Response) == 24);

}  // namespace store_wire
}  // namespace pycomm
