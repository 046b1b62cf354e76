// Sockets: addresses, listening, dialling, exact reads and writes with a deadline. Everything is close-on-exec and
// non-blocking; functions that wait say so.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "pycomm/status.h"
#include "pycomm/wait.h"

namespace pycomm {

// An address of IPv4, IPv6 or an abstract unix socket.
struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  int family() const noexcept { return storage.ss_family; }
  const sockaddr* raw() const noexcept { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* raw() noexcept { return reinterpret_cast<sockaddr*>(&storage); }
  std::uint16_t port() const noexcept;
  void set_port(std::uint16_t port) noexcept;
  // "10.0.0.1:80", "[::1]:80", "@name" for abstract unix sockets.
  std::string text() const;
};

// Address of the abstract unix socket `name` (at most 100 bytes; exists in no file system).
Address abstract_address(std::string_view name);

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};
// "host:port", "1.2.3.4:80", "[::1]:80". Code::usage when it is none of these.
Result<HostPort> parse_host_port(std::string_view text);

// Every address of `host` in the order of preference; `family` 0 (any), 4 or 6. Blocks on the name service.
// Code::unavailable when there is none.
Result<std::vector<Address>> resolve(const std::string& host, std::uint16_t port, int family);

// The address of this machine that `interface` names: an interface ("eth0") or an address ("10.0.0.1", "::1").
Result<Address> interface_address(const std::string& interface, int family);

// A listening socket. Port 0 lets the kernel choose; local_address() tells.
Result<UniqueFd> listen_on(const Address& address);
Result<Address> local_address(int fd);

// Starts a connection. `pending` is set when it has not been decided yet: wait for writability, then ask
// connect_result(). On failure errno is in `error` and the result is invalid.
UniqueFd start_connect(const Address& address, bool& pending, int& error);
int connect_result(int fd) noexcept;  // 0 or an errno

// No delay for small frames, keep-alive for connections that are silent for long. Buffers are left to the kernel, which
// grows them as far as the path needs. Errors do not matter.
void tune_tcp(int fd) noexcept;

// Waits until `fd` has one of `events` (poll.h). False when the deadline passed.
bool wait_ready(int fd, short events, Deadline deadline) noexcept;

// Move exactly `nbytes`; wait as long as it takes, up to the deadline. Codes: deadline, peer_lost.
Status send_exact(int fd, const void* data, std::size_t nbytes, Deadline deadline);
Status recv_exact(int fd, void* data, std::size_t nbytes, Deadline deadline);

// "what: text of the errno".
std::string errno_text(std::string_view what, int error);

}  // namespace pycomm
