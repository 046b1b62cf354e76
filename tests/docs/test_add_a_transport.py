"""The worked example of docs/add-a-transport.md compiles without a warning and moves frames."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add-a-transport.md"
COMPILER = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-pthread"]
PROGRAM = """
#include <cstdio>
#include <cstdlib>
#include <thread>

using namespace pycomm;

static void check(bool right, const char* what) {
  if (right) return;
  std::fprintf(stderr, "%s\\n", what);
  std::exit(1);
}

static void add(void* out, const void* a, const void* b, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i)
    static_cast<int*>(out)[i] = static_cast<const int*>(a)[i] + static_cast<const int*>(b)[i];
}

struct Sums final : Receiver {
  Landing landing(int peer, const FrameHeader& header) noexcept override {
    check(peer == 0 && header.seq == next, "frames come in order");
    Landing landing;
    if (header.seq % 3 == 2) return landing;  // nobody wants these
    landing.dst = landing.cookie = values;
    if (header.seq % 3 == 1) {
      landing.operand = values;
      landing.reduce = add;
      landing.itemsize = sizeof(int);
    }
    return landing;
  }
  void landed(int, const FrameHeader&, const Landing&) noexcept override { ++next; }
  void parked(int, const FrameHeader&, const Landing&) noexcept override {}
  bool resumed(int, const FrameHeader&, const Landing&) noexcept override { return true; }
  void returned() noexcept override {}
  int values[4] = {};
  std::uint64_t next = 0;
};

int main() {
  Wires wires(2);
  for (auto& row : wires)
    for (int i = 0; i < 2; ++i) row.push_back(std::make_unique<Wire>());
  QueueTransport left(wires, 0), right(wires, 1);
  const int payload[4] = {1, 2, 3, 4};
  Lent lent{0};
  const auto post = [&](std::uint64_t seq) {
    FrameHeader header{};
    header.magic = kFrameMagic;
    header.seq = seq;
    header.nbytes = header.total = sizeof payload;
    lent.fetch_add(1);
    left.connect(1).post_send(header, payload, lent);
  };
  Sums sums;
  std::thread receiver([&] {
    while (sums.next < 3000) right.poll(sums);
  });
  for (std::uint64_t seq = 0; seq < 3000; ++seq) post(seq);
  receiver.join();
  while (lent.load(std::memory_order_acquire) != 0) {
  }
  for (int i = 0; i < 4; ++i) check(sums.values[i] == 2 * payload[i], "copied, then reduced in place");
  check(!right.poll(sums), "nothing is left");
  for (std::uint64_t seq = 3000; seq < 3010; ++seq) post(seq);
  left.connect(1).cancel(FrameType::schedule, 3009);
  check(lent.load() == 9, "cancel gives back what one operation lent");
  left.connect(1).cancel_all();
  check(lent.load() == 0 && !right.poll(sums), "cancel_all gives back everything, and nothing arrives");
  std::puts("ok");
}
"""


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler in PATH")
def test_example_moves_frames(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```cpp\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source, program = tmp_path / "queue.cc", tmp_path / "queue"
    source.write_text(example + PROGRAM)
    include = str(ROOT / "native" / "include")
    built = subprocess.run(
        [str(COMPILER), *FLAGS, "-I", include, str(source), "-o", str(program)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    ran = subprocess.run([str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout) == (0, "ok\n"), ran.stderr
