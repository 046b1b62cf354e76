#include <sys/epoll.h>
#include <sys/uio.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "net/store.h"

namespace pycomm {

using store_wire::Answer;
using store_wire::Op;
using store_wire::Request;
using store_wire::Response;
using Value = std::shared_ptr<const std::string>;

// The keys, and who waits for which. Reactor thread only.
class StoreServer::Table {
 public:
  explicit Table(Reactor& reactor) : reactor_(reactor) {}
  void open(UniqueFd fd);
  void set(const std::shared_ptr<Connection>& from, std::uint32_t id, const std::string& key, std::string value);
  void get(const std::shared_ptr<Connection>& from, std::uint32_t id, std::string key);
  void gone(const std::shared_ptr<Connection>& connection);
  void close();

 private:
  struct Waiter {
    std::shared_ptr<Connection> connection;
    std::uint32_t id;
  };
  Reactor& reactor_;
  std::size_t nbytes_ = 0;
  std::unordered_map<std::string, Value> values_;
  std::unordered_map<std::string, std::vector<Waiter>> waiters_;
  std::unordered_set<std::shared_ptr<Connection>> connections_;
};

// One authenticated client: requests in, answers out, in whatever order they become known.
class StoreServer::Connection : public Reactor::Handler, public std::enable_shared_from_this<Connection> {
 public:
  Connection(Reactor& reactor, Table& table, UniqueFd fd) : reactor_(reactor), table_(table), fd_(std::move(fd)) {}

  bool open() {
    token_ = reactor_.watch(fd_.get(), EPOLLIN, shared_from_this());
    return token_ != 0;
  }
  void close() {
    if (!fd_) return;
    reactor_.forget(fd_.get());
    fd_.reset();
  }

  void answer(std::uint32_t id, Answer what, Value value = nullptr) {
    if (!fd_) return;
    Response head;
    head.answer = what;
    head.id = id;
    head.value_nbytes = value ? value->size() : 0;
    out_.push_back({head, std::move(value), 0});
    write();
  }

  void on_ready(std::uint32_t events) noexcept override {
    const auto self = shared_from_this();
    if (events & EPOLLOUT) write();
    if (fd_ && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read()) {
      close();
      table_.gone(self);
    }
  }

  std::unordered_set<std::string> waits_for;  // kept by Table

 private:
  struct Out {
    Response head;
    Value value;
    std::size_t sent;
  };

  // False when the client hung up or sent what it may not.
  bool read() {
    for (int budget = 64; budget > 0; --budget) {
      const bool in_head = head_got_ < sizeof(request_);
      char* at = in_head ? reinterpret_cast<char*>(&request_) + head_got_ : body_.data() + body_got_;
      const std::size_t want = in_head ? sizeof(request_) - head_got_ : body_.size() - body_got_;
      const ssize_t n = ::recv(fd_.get(), at, want, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return errno == EAGAIN || errno == EWOULDBLOCK;
      if (n == 0) return false;
      (in_head ? head_got_ : body_got_) += static_cast<std::size_t>(n);
      if (in_head && head_got_ == sizeof(request_)) {
        if (!lawful()) return false;
        body_.resize(request_.key_nbytes + request_.value_nbytes);
      }
      if (head_got_ == sizeof(request_) && body_got_ == body_.size()) dispatch();
    }
    return true;
  }

  bool lawful() const noexcept {
    return request_.magic == store_wire::kMagic && (request_.op == Op::set || request_.op == Op::get) &&
           request_.key_nbytes <= kMaxStoreKey && request_.value_nbytes <= kMaxStoreValue &&
           (request_.op == Op::set || request_.value_nbytes == 0) && request_.key_nbytes > 0;
  }

  void dispatch() {
    std::string key = body_.substr(0, request_.key_nbytes);
    if (request_.op == Op::set) {
      table_.set(shared_from_this(), request_.id, key, body_.substr(request_.key_nbytes));
    } else {
      table_.get(shared_from_this(), request_.id, std::move(key));
    }
    head_got_ = 0;
    body_got_ = 0;
    body_.clear();
    body_.shrink_to_fit();
  }

  void write() {
    while (fd_ && !out_.empty()) {
      Out& front = out_.front();
      const std::size_t head_left = front.sent < sizeof(front.head) ? sizeof(front.head) - front.sent : 0;
      const std::size_t value_nbytes = front.value ? front.value->size() : 0;
      const std::size_t value_sent = head_left > 0 ? 0 : front.sent - sizeof(front.head);
      std::array<iovec, 2> parts{};
      parts[0] = {reinterpret_cast<char*>(&front.head) + (sizeof(front.head) - head_left), head_left};
      if (value_nbytes > 0) parts[1] = {const_cast<char*>(front.value->data()) + value_sent, value_nbytes - value_sent};
      msghdr message{};
      message.msg_iov = parts.data();
      message.msg_iovlen = parts.size();
      const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) break;  // full: EPOLLOUT goes on; broken: the read side notices
      front.sent += static_cast<std::size_t>(n);
      if (front.sent == sizeof(front.head) + value_nbytes) out_.pop_front();
    }
    if (fd_) reactor_.rearm(fd_.get(), token_, out_.empty() ? EPOLLIN : EPOLLIN | EPOLLOUT);
  }

  Reactor& reactor_;
  Table& table_;
  UniqueFd fd_;
  Reactor::Token token_ = 0;
  Request request_;
  std::size_t head_got_ = 0;
  std::string body_;  // key, then value
  std::size_t body_got_ = 0;
  std::deque<Out> out_;
};

void StoreServer::Table::open(UniqueFd fd) {
  auto connection = std::make_shared<Connection>(reactor_, *this, std::move(fd));
  if (connection->open()) connections_.insert(std::move(connection));
}

void StoreServer::Table::set(const std::shared_ptr<Connection>& from, std::uint32_t id, const std::string& key,
                             std::string value) {
  if (const auto found = values_.find(key); found != values_.end())
    return from->answer(id, *found->second == value ? Answer::fine : Answer::conflict);
  const std::size_t grows = key.size() + value.size() + 128;
  if (grows > kMaxStoreTotal - nbytes_) return from->answer(id, Answer::full);
  nbytes_ += grows;
  const Value kept = std::make_shared<const std::string>(std::move(value));
  values_.emplace(key, kept);
  from->answer(id, Answer::fine);
  const auto waiting = waiters_.extract(key);
  if (waiting.empty()) return;
  for (const Waiter& waiter : waiting.mapped()) {
    waiter.connection->waits_for.erase(key);
    waiter.connection->answer(waiter.id, Answer::fine, kept);
  }
}

void StoreServer::Table::get(const std::shared_ptr<Connection>& from, std::uint32_t id, std::string key) {
  if (const auto found = values_.find(key); found != values_.end())
    return from->answer(id, Answer::fine, found->second);
  from->waits_for.insert(key);
  waiters_[std::move(key)].push_back({from, id});
}

void StoreServer::Table::gone(const std::shared_ptr<Connection>& connection) {
  for (const std::string& key : connection->waits_for) {
    const auto found = waiters_.find(key);
    if (found == waiters_.end()) continue;
    std::erase_if(found->second, [&](const Waiter& waiter) { return waiter.connection == connection; });
    if (found->second.empty()) waiters_.erase(found);
  }
  connection->waits_for.clear();
  connections_.erase(connection);
}

void StoreServer::Table::close() {
  for (const auto& connection : connections_) connection->close();
  waiters_.clear();
  connections_.clear();
}

Result<std::unique_ptr<StoreServer>> StoreServer::start(const std::string& host, std::uint16_t port,
                                                        const std::string& secret, int family) {
  Result<std::vector<Address>> addresses = resolve(host, port, family);
  if (!addresses.ok()) return addresses.status();
  Result<UniqueFd> listener = listen_on(addresses->front());
  if (!listener.ok()) return listener.status();
  Result<Address> bound = local_address(listener->get());
  if (!bound.ok()) return bound.status();
  Result<std::unique_ptr<Reactor>> reactor = Reactor::start("pycomm-store");
  if (!reactor.ok()) return reactor.status();

  std::unique_ptr<StoreServer> server(new StoreServer);
  server->port_ = bound->port();
  server->reactor_ = std::move(*reactor);
  server->table_ = std::make_shared<Table>(*server->reactor_);
  AcceptorConfig config;
  config.secret = secret;
  config.accepts = [](const Hello& hello) { return hello.purpose == Purpose::store; };
  config.welcome = [table = server->table_.get()](UniqueFd fd, const Hello&) { table->open(std::move(fd)); };
  server->acceptor_ = std::make_shared<Acceptor>(*server->reactor_, std::move(*listener), std::move(config));
  bool open = false;
  server->reactor_->call([&] { open = server->acceptor_->open(); });
  if (!open) return Status(Code::resource, "cannot watch the store's listening socket");
  return server;
}

StoreServer::~StoreServer() { close(); }

void StoreServer::close() {
  reactor_->call([this] {
    acceptor_->close();
    table_->close();
  });
  reactor_->stop();
}

AcceptorCounts StoreServer::turned_away() {
  AcceptorCounts counts;
  reactor_->call([&] { counts = acceptor_->counts(); });
  return counts;
}

}  // namespace pycomm
