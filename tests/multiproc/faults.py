"""Injects faults into real groups of processes and checks what every survivor sees, and when.

    python tests/multiproc/faults.py kill --trials 50       SIGKILL of a random rank at a random moment
    python tests/multiproc/faults.py stop                   SIGSTOP: the deadline ends the wait
    python tests/multiproc/faults.py interrupt              SIGINT to a waiting rank
    python tests/multiproc/faults.py exit                   a rank leaves early, in five ways
    python tests/multiproc/faults.py abort                  abort() from another thread, in several phases
    python tests/multiproc/faults.py disagree               every kind of disagreement between ranks
    python tests/multiproc/faults.py strangers              garbage, wrong secrets, half-open connections

Survivors stay alive after their error: nobody learns of a death from somebody else's exit. Exit status 0 when
every trial went well.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from ranks import Failed, Say, all_said, finish, get, pump, start, until_said

import pycomm
from pycomm import errors

LIMIT_S = 1.0
HOLD_S = 1.2


def report(say: Say, error: BaseException) -> None:
    say(
        "error",
        type=type(error).__name__,
        ranks=list(getattr(error, "ranks", ())),
        seq=getattr(error, "seq", None),
        text=str(error),
    )


def leftovers() -> set[str]:
    """What a job could leave on this host: shared memory, sockets in the abstract namespace."""
    found = {f"/dev/shm/{p.name}" for p in Path("/dev/shm").iterdir()}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        name = line.split()[-1]
        if name.startswith("@") and "pycomm" in name:
            found.add(name)
    return found


def traffic(comm: pycomm.Communicator, say: Say) -> None:
    """Allreduce and exchange arrays of many sizes until something fails, then stay."""
    rng = random.Random(7)
    arrays = [np.ones(n * comm.size, np.float32) for n in (1, 300, 15_000, 300_000)]
    calls = [partial(call, a) for a in arrays for call in (comm.allreduce, comm.alltoall)]
    for call in calls * 3:
        call(np.empty_like(call.args[0]))
    say("warm", pid=os.getpid())
    try:
        while True:
            call = rng.choice(calls)
            call(np.empty_like(call.args[0]))
    except errors.PycommError as error:
        report(say, error)
    time.sleep(HOLD_S)
    comm.close()


def over_tcp(flag: bool) -> None:
    os.environ["PYCOMM_SHM"] = "0" if flag else "1"


def kill(args: argparse.Namespace) -> None:
    """SIGKILL a random rank at a random moment; every survivor must name it in time."""
    rng = random.Random(args.seed)
    before, slowest = leftovers(), []
    for trial in range(args.trials):
        ranks = start(args.ranks, traffic)
        try:
            until_said(ranks, "warm", 30, "all ranks to be warm")
            victim = rng.randrange(args.ranks)
            time.sleep(rng.uniform(0, 0.05))
            killed = time.monotonic()
            os.kill(ranks[victim].pid, signal.SIGKILL)
            others = [r for r in ranks if r.number != victim]
            until_said(others, "error", 10, "the survivors to hear of it")
            for rank in others:
                error = get(rank, "error")
                if error["type"] != "PeerLost" or error["ranks"] != [victim]:
                    raise Failed(f"trial {trial}: killed rank {victim}, rank {rank.number} got {error}")
                slowest.append(error["at"] - killed)
        finally:
            finish(ranks)
    if max(slowest) > LIMIT_S:
        raise Failed(f"the slowest survivor took {max(slowest):.3f} s")
    if left := leftovers() - before:
        raise Failed(f"left behind: {sorted(left)}")
    print(
        f"kill: {args.trials} trials, {args.ranks} ranks{', tcp' if args.tcp else ''}: every survivor raised "
        f"PeerLost naming the victim, median {statistics.median(slowest) * 1e3:.1f} ms, max "
        f"{max(slowest) * 1e3:.1f} ms; nothing left behind"
    )


def stop(args: argparse.Namespace) -> None:
    """SIGSTOP a rank; the others' deadline ends their wait."""
    timeout_s = 2.0

    def body(comm: pycomm.Communicator, say: Say) -> None:
        x = np.ones(1000, np.float32)
        comm.allreduce(x)
        say("warm")
        while True:
            began = time.monotonic()
            try:
                comm.allreduce(x, timeout_s=timeout_s)
            except errors.PycommError as error:
                report(say, error)
                say("waited", seconds=time.monotonic() - began)
                return
            time.sleep(0.01)

    ranks = start(args.ranks, body)
    try:
        until_said(ranks, "warm", 30, "all ranks to be warm")
        victim = args.ranks - 1
        os.kill(ranks[victim].pid, signal.SIGSTOP)
        others = ranks[:victim]
        until_said(others, "waited", 10, "the deadline")
        for rank in others:
            error, waited = get(rank, "error"), get(rank, "waited")["seconds"]
            if (
                error["type"] != "DeadlineExceeded"
                or victim not in error["ranks"]
                or waited > timeout_s + 0.5
            ):
                raise Failed(f"rank {rank.number} waited {waited:.2f} s and got {error}")
    finally:
        finish(ranks)
    print(
        f"stop: every waiting rank raised DeadlineExceeded naming rank {victim} within {timeout_s} s + 0.5 s"
    )


def interrupt(args: argparse.Namespace) -> None:
    """SIGINT to a rank that waits for one that does not come."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        x = np.ones(1000, np.float32)
        comm.allreduce(x)
        say("warm")
        if comm.rank == 0:
            time.sleep(3)
            return
        try:
            comm.allreduce(x)
        except BaseException as error:
            report(say, error)

    ranks = start(args.ranks, body)
    try:
        until_said(ranks, "warm", 30, "all ranks to be warm")
        time.sleep(0.3)
        sent = time.monotonic()
        os.kill(ranks[1].pid, signal.SIGINT)
        until_said(ranks[1:], "error", 5, "the interrupt")
        first = get(ranks[1], "error")
        if first["type"] != "KeyboardInterrupt" or first["at"] - sent > LIMIT_S:
            raise Failed(f"rank 1 got {first} after {first['at'] - sent:.2f} s")
        for rank in ranks[2:]:
            if get(rank, "error")["type"] not in {"Aborted", "PeerLost"}:
                raise Failed(f"rank {rank.number} got {get(rank, 'error')}")
    finally:
        finish(ranks)
    print(
        f"interrupt: KeyboardInterrupt after {(first['at'] - sent) * 1e3:.0f} ms; the other ranks were told"
    )


def leave_early(args: argparse.Namespace) -> None:
    """A rank leaves without taking part: by return, exception, sys.exit, os._exit and os.abort."""
    ways: dict[str, Callable[[], None]] = {
        "return": lambda: None,
        "sys.exit": lambda: sys.exit(0),
        "os._exit": lambda: os._exit(0),
        "os.abort": os.abort,
        "segfault": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    }
    for name, way in ways.items():

        def body(
            comm: pycomm.Communicator, say: Say, name: str = name, way: Callable[[], None] = way
        ) -> None:
            x = np.ones(1000, np.float32)
            comm.allreduce(x)
            if comm.rank == 1:
                time.sleep(0.3)  # the others may still be in the allreduce that this rank has done with
                say("leaving")
                if name == "return":
                    comm.close()
                    time.sleep(HOLD_S)
                try:
                    way()
                except SystemExit:
                    comm.close()
                return
            try:
                comm.allreduce(x)
            except errors.PycommError as error:
                report(say, error)
            time.sleep(0.5)

        ranks = start(args.ranks, body)
        try:
            others = [r for r in ranks if r.number != 1]
            pump(ranks, partial(all_said, others, "error"), 10, f"the others to hear of {name}")
            for rank in others:
                got = get(rank, "error")
                late = got["at"] - get(ranks[1], "leaving")["at"]
                if got["type"] != "PeerLost" or got["ranks"] != [1] or late > LIMIT_S:
                    raise Failed(f"{name}: rank {rank.number} got {got} after {late:.2f} s")
        finally:
            finish(ranks)
    print(f"exit: {', '.join(ways)}: every other rank raised PeerLost naming the rank within {LIMIT_S} s")


def abort(args: argparse.Namespace) -> None:
    """abort() from another thread while ranks wait in a collective, in a receive, or in nothing."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        x = np.ones(1000, np.float32)
        comm.allreduce(x)
        if comm.rank == 0:
            time.sleep(0.3)
            thread = threading.Thread(target=comm.abort, args=("told to by the test",))
            say("aborting")
            thread.start()
            thread.join()
            comm.abort("twice is fine")
        try:
            if comm.rank == 1:
                comm.recv(x, 0)
            else:
                comm.allreduce(x)
                comm.allreduce(x)
        except errors.PycommError as error:
            report(say, error)
        time.sleep(0.5)
        comm.close()

    ranks = start(args.ranks, body)
    try:
        until_said(ranks, "end", 10, "all ranks to end")
        for rank in ranks:
            error = get(rank, "error")
            late = error["at"] - get(ranks[0], "aborting")["at"]
            if error["type"] != "Aborted" or "told to by the test" not in error["text"] or late > LIMIT_S:
                raise Failed(f"rank {rank.number} got {error} after {late:.2f} s")
    finally:
        finish(ranks)
    print(
        f"abort: every rank raised Aborted with the reason within {LIMIT_S} s, "
        "in a collective, a receive and later"
    )


def allgather_ragged(comm: pycomm.Communicator, odd: bool) -> None:
    """Each rank's own count is right; one rank believes another sends more."""
    counts = [5] * comm.size
    if odd:
        counts[(comm.rank + 1) % comm.size] = 6
    comm.allgatherv(np.ones(5, np.float32), np.empty(sum(counts), np.float32), counts)


DISAGREEMENTS: dict[str, Callable[[pycomm.Communicator, bool], None]] = {
    "count": lambda c, odd: c.allreduce(np.ones(1001 if odd else 1000, np.float32)),
    "large count": lambda c, odd: c.allreduce(np.ones(1_000_001 if odd else 1_000_000, np.float32)),
    "dtype": lambda c, odd: c.allreduce(np.ones(1000, np.int32 if odd else np.float32)),
    "dtype of other size": lambda c, odd: c.allreduce(
        np.ones(500, np.float64) if odd else np.ones(1000, np.float32)
    ),
    "reduce op": lambda c, odd: c.allreduce(np.ones(1000, np.float32), op="max" if odd else "sum"),
    "operation": lambda c, odd: c.barrier() if odd else c.allreduce(np.ones(1000, np.float32)),
    "allreduce against allgather": lambda c, odd: (
        c.allgather(np.ones(10, np.float32), np.empty(10 * c.size, np.float32))
        if odd
        else c.allreduce(np.ones(10, np.float32))
    ),
    "root of a broadcast": lambda c, odd: c.broadcast(np.ones(1000, np.float32), root=1 if odd else 0),
    "root of a reduce": lambda c, odd: c.reduce(
        np.ones(9, np.float32), np.empty(9, np.float32), root=1 if odd else 0
    ),
    "algorithm": lambda c, odd: c.allreduce(
        np.ones(1000, np.float32), algorithm="ring" if odd else "recursive_doubling"
    ),
    "own algorithm against a schedule": lambda c, odd: c.allreduce(
        np.ones(1000, np.float32), algorithm="bidirectional_ring" if odd else None
    ),
    "counts": lambda c, odd: allgather_ragged(c, odd),
    "splits of alltoallv": lambda c, odd: c.alltoallv(
        np.ones(c.size, np.float32), [1] * c.size, np.empty(c.size + (1 if odd else 0), np.float32),
        [2 if odd and i == 0 else 1 for i in range(c.size)],
    ),
}  # fmt: skip


def disagree(args: argparse.Namespace) -> None:
    """Ranks make different calls: all raise Mismatch showing both sides, and the group goes on working."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        for name, act in DISAGREEMENTS.items():
            for odd_rank in (0, comm.size - 1):
                comm.barrier()
                began = time.monotonic()
                try:
                    act(comm, comm.rank == odd_rank)
                    say("error", name=name, type="nothing", text="", seconds=0)
                except errors.Mismatch as error:
                    say(
                        "error", name=name, type="Mismatch", text=str(error), seconds=time.monotonic() - began
                    )
                x = np.full(100, comm.rank, np.int64)
                comm.allreduce(x)
                if not (x == comm.size * (comm.size - 1) // 2).all():
                    raise Failed(f"the group is broken after {name}")

    ranks = start(args.ranks, body)
    try:
        until_said(ranks, "end", 60, "all ranks to end")
        for rank in ranks:
            seen = [e for e in rank.events if e["event"] == "error"]
            if len(seen) != 2 * len(DISAGREEMENTS):
                raise Failed(f"rank {rank.number} saw {len(seen)} of {2 * len(DISAGREEMENTS)} disagreements")
            for event in seen:
                both = event["text"].count("rank ") >= 2
                if event["type"] != "Mismatch" or not both or event["seconds"] > LIMIT_S:
                    raise Failed(f"rank {rank.number}: {event}")
    finally:
        finish(ranks)
    print(
        f"disagree: {len(DISAGREEMENTS)} kinds, {args.ranks} ranks{', tcp' if args.tcp else ''}: all ranks "
        f"raised Mismatch with both sides within {LIMIT_S} s and went on"
    )


def listening_ports(pids: list[int]) -> list[int]:
    """TCP ports on which any of the processes listens."""
    inodes = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(entry.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and cells[9] in inodes:
                ports.add(int(cells[1].rsplit(":", 1)[1], 16))
    return sorted(ports)


def knock(ports: list[int], rng: random.Random) -> list[socket.socket]:
    """Send every port garbage and floods; return the connections that are left half open."""
    half_open: list[socket.socket] = []
    for port in ports:
        for i in range(150):
            with contextlib.suppress(OSError):
                s = socket.create_connection(("127.0.0.1", port), timeout=1)
                if i % 5 == 0:
                    s.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
                elif i % 5 == 1:
                    s.sendall(rng.randbytes(rng.randrange(1, 4096)))
                elif i % 5 == 2:
                    s.sendall(b"\xff" * 64)
                if i % 5 == 3 and len(half_open) < 60:
                    s.sendall(b"abc")
                    half_open.append(s)
                else:
                    s.close()
    return half_open


def strangers(args: argparse.Namespace) -> None:
    """Garbage, floods, half-open connections and wrong secrets at every listening port disturb nothing."""

    def body(comm: pycomm.Communicator, say: Say) -> None:
        say("warm")
        end = time.monotonic() + 4
        rounds = 0
        go_on = np.ones(1, np.int32)
        while go_on[0]:
            x = np.full(1000, comm.rank, np.int64)
            comm.allreduce(x)
            if not (x == comm.size * (comm.size - 1) // 2).all():
                raise Failed("wrong sum")
            rounds += 1
            go_on[0] = time.monotonic() < end
            comm.broadcast(go_on, root=0)
        say("descriptors", count=len(list(Path("/proc/self/fd").iterdir())), rounds=rounds)
        comm.close()

    ranks = start(args.ranks, body)
    half_open: list[socket.socket] = []
    try:
        until_said(ranks, "warm", 30, "all ranks to be warm")
        counts = [len(list(Path(f"/proc/{r.pid}/fd").iterdir())) for r in ranks]
        ports = listening_ports([r.pid for r in ranks])
        half_open = knock(ports, random.Random(args.seed))
        with contextlib.suppress(errors.PycommError):
            pycomm.init(
                "native",
                rank=0,
                size=2,
                rendezvous=f"127.0.0.1:{ports[0]}",
                secret="a wrong secret",
                timeout_s=2,
            )
            raise Failed("a wrong secret was let in")
        until_said(ranks, "end", 20, "the job to go on to its end")
        for rank, count in zip(ranks, counts, strict=True):
            after = get(rank, "descriptors")["count"]
            if after > count + len(half_open):
                raise Failed(f"rank {rank.number} held {count} descriptors before and {after} after")
    finally:
        for s in half_open:
            s.close()
        finish(ranks)
    rounds = get(ranks[0], "descriptors")["rounds"]
    print(
        f"strangers: {150 * len(ports)} connections to {len(ports)} ports during {rounds} right allreduces; "
        "no harm done"
    )


FAULTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "kill": kill,
    "stop": stop,
    "interrupt": interrupt,
    "exit": leave_early,
    "abort": abort,
    "disagree": disagree,
    "strangers": strangers,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fault", choices=FAULTS)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tcp", action="store_true", help="without shared memory, as between hosts")
    args = parser.parse_args()
    over_tcp(args.tcp)
    try:
        FAULTS[args.fault](args)
    except Failed as failure:
        print(f"{args.fault}: FAILED: {failure}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
