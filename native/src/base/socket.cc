#include "base/socket.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <memory>

namespace pycomm {
namespace {

int family_constant(int family) noexcept { return family == 4 ? AF_INET : family == 6 ? AF_INET6 : AF_UNSPEC; }

Address make_address(const sockaddr* raw, std::size_t length) {
  Address address;
  std::memcpy(&address.storage, raw, std::min(length, sizeof(address.storage)));
  address.length = static_cast<socklen_t>(length);
  return address;
}

std::size_t length_of(int family) noexcept { return family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6); }

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

AddressList look_up(const std::string& host, int family, int flags, int& error) {
  addrinfo hints{};
  hints.ai_family = family_constant(family);
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* list = nullptr;
  error = ::getaddrinfo(host.c_str(), nullptr, &hints, &list);
  return {error == 0 ? list : nullptr, ::freeaddrinfo};
}

}  // namespace

std::string errno_text(std::string_view what, int error) {
  char buffer[128];
  return std::string(what) + ": " + ::strerror_r(error, buffer, sizeof(buffer));
}

std::uint16_t Address::port() const noexcept {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return 0;
}

void Address::set_port(std::uint16_t port) noexcept {
  if (family() == AF_INET) reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
  if (family() == AF_INET6) reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
}

std::string Address::text() const {
  if (family() == AF_UNIX) {
    const auto* path = reinterpret_cast<const sockaddr_un*>(&storage)->sun_path;
    const std::size_t prefix = offsetof(sockaddr_un, sun_path) + 1;
    return "@" + std::string(path + 1, length > prefix ? length - prefix : 0);
  }
  char host[NI_MAXHOST];
  if (::getnameinfo(raw(), length, host, sizeof(host), nullptr, 0, NI_NUMERICHOST) != 0) return "?";
  const std::string name = family() == AF_INET6 ? "[" + std::string(host) + "]" : std::string(host);
  return name + ":" + std::to_string(port());
}

Address abstract_address(std::string_view name) {
  Address address;
  auto* un = reinterpret_cast<sockaddr_un*>(&address.storage);
  un->sun_family = AF_UNIX;
  const std::size_t length = std::min<std::size_t>(name.size(), 100);
  std::memcpy(un->sun_path + 1, name.data(), length);  // the leading zero makes it abstract
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return address;
}

Result<HostPort> parse_host_port(std::string_view text) {
  const auto wrong = [&] {
    return Status(Code::usage, "expected host:port (an IPv6 address in brackets), got '" + std::string(text) + "'");
  };
  std::string_view host;
  std::string_view port;
  if (!text.empty() && text.front() == '[') {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos || end + 1 >= text.size() || text[end + 1] != ':') return wrong();
    host = text.substr(1, end - 1);
    port = text.substr(end + 2);
  } else {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos || text.find(':', colon + 1) != std::string_view::npos) return wrong();
    host = text.substr(0, colon);
    port = text.substr(colon + 1);
  }
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || port.empty() || error != std::errc{} || end != port.data() + port.size()) return wrong();
  return HostPort{std::string(host), number};
}

Result<std::vector<Address>> resolve(const std::string& host, std::uint16_t port, int family) {
  int error = 0;
  const AddressList list = look_up(host, family, AI_ADDRCONFIG, error);
  AddressList fallback(nullptr, ::freeaddrinfo);
  // AI_ADDRCONFIG hides loopback addresses of a family that has no other address; literals and loopback need them.
  if (!list) fallback = look_up(host, family, 0, error);
  std::vector<Address> addresses;
  for (const addrinfo* at = list ? list.get() : fallback.get(); at != nullptr; at = at->ai_next) {
    if (at->ai_family != AF_INET && at->ai_family != AF_INET6) continue;
    addresses.push_back(make_address(at->ai_addr, at->ai_addrlen));
    addresses.back().set_port(port);
  }
  if (addresses.empty()) {
    const char* why = error != 0 ? ::gai_strerror(error) : "no address of the wanted family";
    return Status(Code::unavailable, "cannot resolve host '" + host + "'" +
                                         (family ? " to IPv" + std::to_string(family) : std::string()) + ": " + why);
  }
  return addresses;
}

Result<Address> interface_address(const std::string& interface, int family) {
  ifaddrs* raw = nullptr;
  if (::getifaddrs(&raw) != 0)
    return Status(Code::unavailable, errno_text("cannot list the network interfaces", errno));
  const std::unique_ptr<ifaddrs, decltype(&::freeifaddrs)> list(raw, ::freeifaddrs);
  std::string known;
  const ifaddrs* sixth = nullptr;
  for (const ifaddrs* at = list.get(); at != nullptr; at = at->ifa_next) {
    if (at->ifa_addr == nullptr || (at->ifa_flags & IFF_UP) == 0) continue;
    const int kind = at->ifa_addr->sa_family;
    if (kind != AF_INET && kind != AF_INET6) continue;
    if (known.find(std::string(" ") + at->ifa_name + " ") == std::string::npos)
      known += std::string(" ") + at->ifa_name + " ";
    if (interface != at->ifa_name || (family != 0 && kind != family_constant(family))) continue;
    if (kind == AF_INET) return make_address(at->ifa_addr, length_of(kind));
    if (sixth == nullptr) sixth = at;
  }
  if (sixth != nullptr) return make_address(sixth->ifa_addr, length_of(AF_INET6));
  int error = 0;
  if (const AddressList literal = look_up(interface, family, AI_NUMERICHOST, error); literal)
    return make_address(literal->ai_addr, literal->ai_addrlen);
  return Status(Code::usage, "'" + interface + "' is neither an address nor an interface of this machine" +
                                 (family ? " with an IPv" + std::to_string(family) + " address" : std::string()) +
                                 "; interfaces that are up:" + known);
}

Result<UniqueFd> listen_on(const Address& address) {
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Status(Code::resource, errno_text("cannot create a socket", errno));
  const int one = 1;
  if (address.family() != AF_UNIX) ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (::bind(fd.get(), address.raw(), address.length) != 0) {
    const int error = errno;
    return Status(Code::resource, errno_text("cannot listen on " + address.text(), error) +
                                      (error == EADDRINUSE ? " (choose another port, or 0 for any)" : ""));
  }
  if (::listen(fd.get(), 4096) != 0)
    return Status(Code::resource, errno_text("cannot listen on " + address.text(), errno));
  return fd;
}

Result<Address> local_address(int fd) {
  Address address;
  address.length = sizeof(address.storage);
  if (::getsockname(fd, address.raw(), &address.length) != 0)
    return Status(Code::internal, errno_text("getsockname", errno));
  return address;
}

UniqueFd start_connect(const Address& address, bool& pending, int& error) {
  pending = false;
  error = 0;
  UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    error = errno;
    return fd;
  }
  // Retrying connect after EINTR is wrong: the attempt goes on. It counts as pending.
  if (::connect(fd.get(), address.raw(), address.length) != 0) {
    if (errno == EINPROGRESS || errno == EINTR) {
      pending = true;
    } else {
      error = errno;
      fd.reset();
    }
  }
  return fd;
}

int connect_result(int fd) noexcept {
  int error = 0;
  socklen_t length = sizeof(error);
  if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0) return errno;
  return error;
}

void tune_tcp(int fd) noexcept {
  const int one = 1;
  const int idle_s = 30;
  const int interval_s = 10;
  const int probes = 3;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof(idle_s));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof(interval_s));
  ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

bool wait_ready(int fd, short events, Deadline deadline) noexcept {
  for (;;) {
    int timeout_ms = -1;
    if (deadline.at_ns != INT64_MAX) {
      const std::int64_t left = deadline.at_ns - now_ns();
      if (left <= 0) return false;
      timeout_ms = static_cast<int>(std::min<std::int64_t>(left / 1'000'000 + 1, 1'000'000));
    }
    pollfd entry{fd, events, 0};
    const int ready = ::poll(&entry, 1, timeout_ms);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return true;  // let the following call report what is wrong
  }
}

Status send_exact(int fd, const void* data, std::size_t nbytes, Deadline deadline) {
  const auto* at = static_cast<const char*>(data);
  while (nbytes > 0) {
    const ssize_t sent = ::send(fd, at, nbytes, MSG_NOSIGNAL);
    if (sent >= 0) {
      at += sent;
      nbytes -= static_cast<std::size_t>(sent);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_ready(fd, POLLOUT, deadline)) return {Code::deadline, "the deadline passed while sending"};
    } else if (errno != EINTR) {
      return {Code::peer_lost, errno_text("the connection broke while sending", errno)};
    }
  }
  return {};
}

Status recv_exact(int fd, void* data, std::size_t nbytes, Deadline deadline) {
  auto* at = static_cast<char*>(data);
  while (nbytes > 0) {
    const ssize_t got = ::recv(fd, at, nbytes, 0);
    if (got > 0) {
      at += got;
      nbytes -= static_cast<std::size_t>(got);
    } else if (got == 0) {
      return {Code::peer_lost, "the other side closed the connection"};
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_ready(fd, POLLIN, deadline)) return {Code::deadline, "the deadline passed while waiting for an answer"};
    } else if (errno != EINTR) {
      return {Code::peer_lost, errno_text("the connection broke while receiving", errno)};
    }
  }
  return {};
}

}  // namespace pycomm
