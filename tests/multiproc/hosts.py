"""Two hosts on one machine: network namespaces and a cable that can be pulled out. Needs root and `ip`.

python tests/multiproc/hosts.py results         2 + 2 ranks: shm inside a host, tcp between; right results
python tests/multiproc/hosts.py results --ipv6  the same over IPv6
python tests/multiproc/hosts.py torch           the same, met through torch.distributed's store
python tests/multiproc/hosts.py interface       the interface is named, not found out
python tests/multiproc/hosts.py unplug          the cable is pulled out in the middle of an operation
python tests/multiproc/hosts.py kill            a rank dies; both hosts hear of it

The two share a kernel, as containers of one machine do, but no network, no abstract sockets and no host name.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from ranks import SECRET, Failed, Rank, Say, finish, get, run_to_end, start, until_said

import pycomm
from pycomm import errors

PER_HOST = 2
SIZE = 2 * PER_HOST
PORT = 29500
ADDRESSES = {4: ("192.0.2.1", "192.0.2.2"), 6: ("fd00:7079::1", "fd00:7079::2")}
CABLE = "cable0"
TIMEOUT_S = 2.0
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWNET = 0x40000000


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise Failed(f"ip {' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Names of two connected network namespaces that go with the block."""
    names = (f"pycomm-{os.getpid()}-a", f"pycomm-{os.getpid()}-b")
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("-n", names[0], "link", "add", CABLE, "type", "veth", "peer", "name", CABLE, "netns", names[1])
        for index, name in enumerate(names):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "addr", "add", f"{ADDRESSES[4][index]}/24", "dev", CABLE)
            ip("-n", name, "addr", "add", f"{ADDRESSES[6][index]}/64", "dev", CABLE, "nodad")
            ip("-n", name, "link", "set", CABLE, "up")
        yield names
    finally:
        for name in made:
            ip("netns", "del", name)


def move_to(host: str, name: str = "") -> None:
    """Move this process to a host: its network, and its name, the network's if it has no other."""
    name = name or host
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/run/netns/{host}").open() as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET) != 0 or libc.unshare(_CLONE_NEWUTS) != 0:
            raise OSError(ctypes.get_errno(), f"cannot move to {host}")
    if libc.sethostname(name.encode(), len(name)) != 0:
        raise OSError(ctypes.get_errno(), f"cannot take the name {name}")


def on_hosts(
    hosts: tuple[str, str], body: Callable[[pycomm.Communicator, Say], None], *, family: int = 4
) -> list[Rank]:
    """Fork two ranks on each host."""
    address = ADDRESSES[family][0]
    rendezvous = f"[{address}]:{PORT}" if family == 6 else f"{address}:{PORT}"

    def join(number: int) -> pycomm.Communicator:
        move_to(hosts[number // PER_HOST])
        return pycomm.init(
            "native", rank=number, size=SIZE, rendezvous=rendezvous, secret=SECRET, timeout_s=20
        )

    return start(SIZE, body, join=join)


def check(name: str, got: np.ndarray, wanted: object) -> None:
    if not np.array_equal(got, np.broadcast_to(np.asarray(wanted), got.shape)):
        raise Failed(f"{name}: wrong result")


def some_collectives(comm: pycomm.Communicator, count: int, algorithm: str | None = None) -> None:
    n, r = comm.size, comm.rank
    ramp = np.arange(count, dtype=np.float32) % 1000
    total = np.empty(count, np.float32)
    comm.allreduce(ramp + r, total, algorithm=algorithm)
    check("allreduce", total, ramp * n + n * (n - 1) / 2)
    data = ramp + r
    comm.broadcast(data, root=n - 1, algorithm=algorithm)
    check("broadcast", data, ramp + n - 1)
    blocks = np.empty(n * count, np.float32)
    comm.alltoall(np.repeat(np.arange(n, dtype=np.float32) + 10 * r, count), blocks, algorithm=algorithm)
    check("alltoall", blocks, np.repeat(10 * np.arange(n, dtype=np.float32) + r, count))


def results(family: int) -> None:
    """Shared memory inside a host, TCP between; hosts are told apart; right results, on one host too."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        host = comm.rank // PER_HOST
        say("ways", transports=comm._comm.transports, hosts=comm._agreement.hosts())
        for count in (0, 1, 1000, 300_001):
            some_collectives(comm, count)
        some_collectives(comm, 1000, "hierarchical")
        peer = (comm.rank + PER_HOST) % SIZE
        got = np.empty(100_000)
        work = comm.recv(got, peer, tag=5, async_op=True)
        comm.send(np.full(100_000, float(comm.rank)), peer, tag=5)
        work.wait()
        check("recv", got, float(peer))
        mine = comm.split(host, comm.rank)
        assert mine is not None
        say("mine", transports=mine._comm.transports, own=mine.supports("allreduce"))
        for count in (1, 1000):
            some_collectives(mine, count)
        mine.close()

    with two_hosts() as hosts:
        ranks = on_hosts(hosts, body, family=family)
        run_to_end(ranks, 60)
    for rank in ranks:
        wanted = [
            "self" if r == rank.number else "shm" if r // PER_HOST == rank.number // PER_HOST else "tcp"
            for r in range(SIZE)
        ]
        ways = get(rank, "ways")
        if ways["transports"] != wanted or ways["hosts"] != [0, 0, 1, 1]:
            raise Failed(f"rank {rank.number}: wanted {wanted}, got {ways}")
        inside = get(rank, "mine")
        if sorted(inside["transports"]) != ["self", "shm"] or not inside["own"]:
            raise Failed(f"rank {rank.number}: a group of one host has {inside}")
    print(f"results: shm inside a host, tcp over IPv{family} between: every result right")


def torch_group() -> None:
    """A process group of torch on two hosts meets through torch's store, without a secret of the user's."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        say("ways", transports=comm._comm.transports)
        for count in (1, 300_001):
            some_collectives(comm, count)

    with two_hosts() as hosts:

        def join(number: int) -> pycomm.Communicator:
            move_to(hosts[number // PER_HOST])
            import torch.distributed as dist  # in the rank: torch has threads, which do not survive a fork

            from pycomm.torch.groups import communicator_of

            where = f"tcp://{ADDRESSES[4][0]}:{PORT}"
            dist.init_process_group("pycomm", init_method=where, rank=number, world_size=SIZE)
            return communicator_of()

        ranks = start(SIZE, body, join=join)
        run_to_end(ranks, 60)
    for rank in ranks:
        if sorted(get(rank, "ways")["transports"]) != ["self", "shm", "tcp", "tcp"]:
            raise Failed(f"rank {rank.number} has {get(rank, 'ways')}")
    print("torch: a group over two hosts, met through torch's store: every result right")


def interface() -> None:
    """The interface can be named; one that does not exist is refused, with the names of those that do."""

    def named(comm: pycomm.Communicator, _: Say) -> None:
        some_collectives(comm, 1000)

    os.environ["PYCOMM_INTERFACE"] = CABLE
    os.environ["PYCOMM_FAMILY"] = "4"
    with two_hosts() as hosts:
        ranks = on_hosts(hosts, named)
        run_to_end(ranks, 60)
    print(f"interface: the job runs over {CABLE} when told to")


def endure(comm: pycomm.Communicator, say: Say) -> None:
    """Run collectives until one fails; say how, and after how long; stay."""
    x = np.ones(300_000, np.float32)
    for _ in range(3):
        comm.allreduce(x, np.empty_like(x), timeout_s=20)
    say("warm")
    try:
        while True:
            began = time.monotonic()
            comm.allreduce(x, np.empty_like(x), timeout_s=TIMEOUT_S)
    except errors.PycommError as error:
        say(
            "error",
            type=type(error).__name__,
            ranks=list(getattr(error, "ranks", ())),
            text=str(error),
            seconds=time.monotonic() - began,
        )
    time.sleep(1.5)
    comm.close()


def unplug() -> None:
    """A wait across a dead link ends by the deadline, and names ranks behind it."""
    with two_hosts() as hosts:
        ranks = on_hosts(hosts, endure)
        try:
            until_said(ranks, "warm", 30, "all ranks to be warm")
            time.sleep(0.05)
            ip("-n", hosts[0], "link", "set", CABLE, "down")
            until_said(ranks, "error", TIMEOUT_S + 8, "the deadline")
        finally:
            finish(ranks)
    for rank in ranks:
        error = get(rank, "error")
        behind = {r for r in range(SIZE) if r // PER_HOST != rank.number // PER_HOST}
        if (
            error["type"] != "DeadlineExceeded"
            or not behind & set(error["ranks"])
            or error["seconds"] > TIMEOUT_S + 0.5
        ):
            raise Failed(f"rank {rank.number} (ranks {sorted(behind)} are behind the link) got {error}")
    slowest = max(get(rank, "error")["seconds"] for rank in ranks)
    print(f"unplug: every rank raised DeadlineExceeded naming ranks behind the link; {slowest:.2f} s at most")


def kill() -> None:
    """A rank dies; the ranks of both hosts raise PeerLost naming it within a second."""
    with two_hosts() as hosts:
        ranks = on_hosts(hosts, endure)
        try:
            until_said(ranks, "warm", 30, "all ranks to be warm")
            killed = time.monotonic()
            os.kill(ranks[-1].pid, signal.SIGKILL)
            others = ranks[:-1]
            until_said(others, "error", 10, "the others to hear of it")
        finally:
            finish(ranks)
    for rank in others:
        error = get(rank, "error")
        if error["type"] != "PeerLost" or error["ranks"] != [SIZE - 1] or error["at"] - killed > 1.0:
            raise Failed(f"rank {rank.number} got {error} after {error['at'] - killed:.2f} s")
    print(f"kill: every rank of both hosts raised PeerLost naming rank {SIZE - 1} within a second")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("case", choices=("results", "torch", "interface", "unplug", "kill"))
    parser.add_argument("--ipv6", action="store_true", help="the hosts meet and talk over IPv6")
    args = parser.parse_args()
    cases = {"torch": torch_group, "interface": interface, "unplug": unplug, "kill": kill}
    try:
        if args.case == "results":
            results(6 if args.ipv6 else 4)
        else:
            cases[args.case]()
    except Failed as failure:
        print(f"{args.case}: FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
