#include "net/peer.h"

#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <utility>

#include "base/bytes.h"
#include "base/random.h"

namespace pycomm {
namespace {

constexpr std::uint8_t kFormat = 1;

}  // namespace

std::string PeerInfo::encode() const {
  ByteWriter out;
  out.put(kFormat).text(boot_id).put(pid_space).put(pid).put(instance).text(unix_name);
  out.text({reinterpret_cast<const char*>(&tcp.storage), tcp.length});
  return out.take();
}

Result<PeerInfo> PeerInfo::decode(const std::string& text) {
  ByteReader in(text);
  const auto format = in.get<std::uint8_t>();
  PeerInfo info;
  info.boot_id = in.text();
  info.pid_space = in.get<std::uint64_t>();
  info.pid = in.get<std::int32_t>();
  info.instance = in.get<std::uint64_t>();
  info.unix_name = in.text();
  const std::string address = in.text();
  if (format != kFormat || !in.complete() || address.empty() || address.size() > sizeof(info.tcp.storage))
    return Status(Code::protocol, "what it published in the store cannot be read; run the same release on every rank");
  std::memcpy(&info.tcp.storage, address.data(), address.size());
  info.tcp.length = static_cast<socklen_t>(address.size());
  return info;
}

PeerInfo PeerInfo::of_this_process() {
  PeerInfo info;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> info.boot_id;
  struct stat space {};
  if (::stat("/proc/self/ns/pid", &space) == 0) info.pid_space = space.st_ino;
  info.pid = ::getpid();
  info.instance = random_u64();
  return info;
}

std::shared_ptr<ProcessWatch> ProcessWatch::start(Reactor& reactor, int pid, std::function<void()> ended) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return nullptr;
  const int raw = fd.get();
  auto watch = std::make_shared<ProcessWatch>(reactor, std::move(fd), std::move(ended));
  return reactor.watch(raw, EPOLLIN, watch) != 0 ? watch : nullptr;
}

ProcessWatch::ProcessWatch(Reactor& reactor, UniqueFd fd, std::function<void()> ended)
    : reactor_(reactor), fd_(std::move(fd)), ended_(std::move(ended)) {}

ProcessWatch::~ProcessWatch() = default;

void ProcessWatch::close() {
  if (!fd_) return;
  reactor_.forget(fd_.get());
  fd_.reset();
}

void ProcessWatch::on_ready(std::uint32_t) noexcept {
  const auto ended = std::exchange(ended_, nullptr);
  close();
  if (ended) ended();
}

}  // namespace pycomm
