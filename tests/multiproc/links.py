"""Hosts joined by slow and unequal links, on one machine: is the tuner's choice the best? Needs root.

python tests/multiproc/links.py racks            two racks with a slow trunk
python tests/multiproc/links.py rails            two rails of unequal speed, a rank on each
python tests/multiproc/links.py nics             one host's NIC is slow
python tests/multiproc/links.py ring             hosts in a ring of cables, which forward, and no switch
python tests/multiproc/links.py all              all of them, with the topology from a file, and probed

Every host is a network namespace, every cable a veth pair, every rate a token bucket (tc tbf) at both ends.
The rates are low, so that links and not this machine's cores are what limits. For each collective and size
every planner that can serve it is run, at its best pieces and order; the table shows the tuner's choice,
the best, their ratio, what was predicted, and Gloo and Open MPI beside it where they are installed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from hosts import ip, move_to
from ranks import SECRET, Failed, Rank, Say, get, run_to_end, start

import pycomm
from pycomm import errors
from pycomm.bench import find_mpi
from pycomm.topology.checks import problems
from pycomm.topology.draft import Draft
from pycomm.topology.files import dumps, loads
from pycomm.topology.model import Node, NodeKind, Topology

PORT = 29501
BURST = 6000
QUEUE = 4_000_000
"""Bytes that wait at a slow link before any is dropped: how TCP recovers from loss is not tried here."""
SLACK = 1.10
"""The choice may take this many times as long as the best."""


@dataclass
class Net:
    """Namespaces and cables in the making; rates are in Mbit/s."""

    prefix: str
    made: list[str] = field(default_factory=list)

    def namespace(self, name: str) -> str:
        full = f"{self.prefix}-{name}"
        ip("netns", "add", full)
        self.made.append(full)
        ip("-n", full, "link", "set", "lo", "up")
        return full

    def switch(self, name: str) -> str:
        full = self.namespace(name)
        ip("-n", full, "link", "add", "br0", "type", "bridge")
        ip("-n", full, "link", "set", "br0", "up")
        return full

    def cable(self, a: tuple[str, str], b: tuple[str, str], mbit: int, back: int = 0) -> None:
        """Join two interfaces, each ``(namespace, name)``."""
        ip("-n", a[0], "link", "add", a[1], "type", "veth", "peer", "name", b[1], "netns", b[0])
        for (name, interface), rate in ((a, mbit), (b, back or mbit)):
            shape(name, interface, rate)
            ip("-n", name, "link", "set", interface, "up")

    def plug(self, host: tuple[str, str], switch: str, mbit: int, address: str) -> None:
        """Join a host to a switch."""
        port = f"p{len(self.made)}{host[0][-3:]}{host[1]}".replace("-", "")[:15]
        self.cable(host, (switch, port), mbit)
        ip("-n", switch, "link", "set", port, "master", "br0")
        ip("-n", host[0], "addr", "add", f"{address}/24", "dev", host[1])


def shape(name: str, interface: str, mbit: int) -> None:
    words = f"qdisc add dev {interface} root tbf rate {mbit}mbit burst {BURST} limit {QUEUE}".split()
    done = subprocess.run(["tc", "-n", name, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"tc {' '.join(words)}: {done.stderr.strip()}")


@dataclass(frozen=True)
class Scene:
    """A network that stands.

    ``ranks`` has each rank's namespace, host name and interface; ``addresses`` are those of the hosts, which
    meet at the first; ``topology`` is what a user would write.
    """

    ranks: tuple[tuple[str, str, str], ...]
    addresses: tuple[str, ...]
    topology: Topology


def addresses(count: int, net: int = 0) -> tuple[str, ...]:
    return tuple(f"10.7.{net}.{i + 1}" for i in range(count))


def star(draft: Draft, rank: str, host: str, switch: int, mbit: int) -> None:
    device = draft.add(Node(rank, NodeKind.DEVICE, host, "cpu"))
    draft.cable(device, switch, mbit * 125_000, 0.0, "ethernet")


def racks(net: Net, mbit: int, slow: int) -> Scene:
    """Two racks of two hosts, with a trunk slower than one host."""
    draft, ranks = Draft(), []
    leaves = [draft.add(Node(f"leaf{i}", NodeKind.SWITCH)) for i in range(2)]
    switches = [net.switch(f"s{i}") for i in range(2)]
    net.cable((switches[0], "trunk"), (switches[1], "trunk"), slow)
    for switch in switches:
        ip("-n", switch, "link", "set", "trunk", "master", "br0")
    draft.cable(*leaves, slow * 125_000, 0.0, "trunk")
    for i in range(4):
        host = net.namespace(f"h{i}")
        net.plug((host, "eth0"), switches[i // 2], mbit, f"10.7.0.{i + 1}")
        star(draft, f"rank{i}", f"h{i}", leaves[i // 2], mbit)
        ranks.append((host, f"h{i}", "eth0"))
    return Scene(tuple(ranks), addresses(4), draft.topology("racks"))


def nics(net: Net, mbit: int, slow: int) -> Scene:
    """Four hosts on a switch, the last one with a slow NIC."""
    draft, ranks = Draft(), []
    switch, centre = net.switch("s"), draft.add(Node("switch", NodeKind.SWITCH))
    for i in range(4):
        host, rate = net.namespace(f"h{i}"), slow if i == 3 else mbit
        net.plug((host, "eth0"), switch, rate, f"10.7.0.{i + 1}")
        star(draft, f"rank{i}", f"h{i}", centre, rate)
        ranks.append((host, f"h{i}", "eth0"))
    return Scene(tuple(ranks), addresses(4), draft.topology("nics"))


def rails(net: Net, mbit: int, slow: int) -> Scene:
    """Three hosts with a NIC on each of two rails, and a rank on each NIC.

    What a rank sends leaves its host by the rail of the receiver, whose address is on that rail only.
    """
    draft, ranks = Draft(), []
    rates = (mbit, slow)
    switches = [net.switch(f"s{r}") for r in range(2)]
    centres = [draft.add(Node(f"rail{r}", NodeKind.SWITCH)) for r in range(2)]
    memory = 6 * 10**9
    for i in range(3):
        host, name = net.namespace(f"h{i}"), f"h{i}"
        inner = draft.add(Node(name, NodeKind.HOST, name))
        for r, rate in enumerate(rates):
            net.plug((host, f"eth{r}"), switches[r], rate, f"10.7.{r}.{i + 1}")
            device = draft.add(Node(f"rank{2 * i + r}", NodeKind.DEVICE, name, "cpu"))
            nic = draft.add(Node(f"{name}/eth{r}", NodeKind.NIC, name))
            # what comes from the NIC takes its part of the rank's memory
            draft.join(device, inner, memory, back=memory - rate * 125_000, kind="memory")
            draft.join(inner, nic, rate * 125_000)
            draft.join(nic, device, rate * 125_000)
            draft.cable(nic, centres[r], rate * 125_000, 0.0, "ethernet")
            ranks.append((host, name, f"eth{r}"))
    return Scene(tuple(ranks), addresses(3), draft.topology("rails"))


def ring(net: Net, mbit: int, slow: int) -> Scene:
    """Five hosts in a ring of cables, one of them slow; each forwards for others, the shorter way round."""
    count, draft = 5, Draft()
    hosts = [net.namespace(f"h{i}") for i in range(count)]
    inner = [draft.add(Node(f"h{i}", NodeKind.HOST, f"h{i}")) for i in range(count)]
    for i, host in enumerate(hosts):
        device = draft.add(Node(f"rank{i}", NodeKind.DEVICE, f"h{i}", "cpu"))
        draft.cable(device, inner[i], 6 * 10**9, 0.0, "memory")
        ip("-n", host, "addr", "add", f"10.7.9.{i + 1}/32", "dev", "lo")
        ip("netns", "exec", host, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
    for i in range(count):
        j, rate = (i + 1) % count, slow if i == 1 else mbit
        net.cable((hosts[i], "right"), (hosts[j], "left"), rate)
        ip("-n", hosts[i], "addr", "add", f"10.7.{i}.1/24", "dev", "right")
        ip("-n", hosts[j], "addr", "add", f"10.7.{i}.2/24", "dev", "left")
        draft.cable(inner[i], inner[j], rate * 125_000, 0.0, "ethernet")
    for i, host in enumerate(hosts):
        for away in range(1, count):
            j = (i + away) % count
            via = f"10.7.{i}.2" if away <= count // 2 else f"10.7.{(i - 1) % count}.1"
            ip("-n", host, "route", "add", f"10.7.9.{j + 1}", "via", via, "src", f"10.7.9.{i + 1}")
    ranks = tuple((host, f"h{i}", f"10.7.9.{i + 1}") for i, host in enumerate(hosts))
    return Scene(ranks, addresses(count, 9), draft.topology("ring"))


SCENES: dict[str, Callable[[Net, int, int], Scene]] = {
    "racks": racks,
    "rails": rails,
    "nics": nics,
    "ring": ring,
}


@contextlib.contextmanager
def standing(name: str, mbit: int, slow: int) -> Iterator[Scene]:
    """Build a scene; it goes with the block."""
    net = Net(f"pc{os.getpid()}")
    try:
        yield SCENES[name](net, mbit, slow)
    finally:
        for made in net.made:
            ip("netns", "del", made)


def on_scene(
    scene: Scene, body: Callable[[pycomm.Communicator, Say], None], topology: str, backend: str = "native"
) -> list[Rank]:
    """Fork a rank on each of the scene's places."""

    def join(number: int) -> pycomm.Communicator:
        namespace, host, interface = scene.ranks[number]
        move_to(namespace, host)
        os.environ["PYCOMM_INTERFACE"] = interface
        os.environ["GLOO_SOCKET_IFNAME"] = interface if interface.startswith("eth") else "lo"
        os.environ["PYCOMM_TOPOLOGY"] = topology
        return pycomm.init(
            backend,
            rank=number,
            size=len(scene.ranks),
            rendezvous=f"{scene.addresses[0]}:{PORT}",
            secret=SECRET,
            timeout_s=60,
        )

    return start(len(scene.ranks), body, join=join)


def by_mpi(scene: Scene, args: argparse.Namespace, folder: Path) -> dict[tuple[str, int], float]:
    """Measure Open MPI on a scene; nothing where it is not installed, or does not start."""
    try:
        mpi = find_mpi("openmpi")
    except errors.BackendUnavailable:
        return {}
    hosts = list(dict.fromkeys((namespace, name) for namespace, name, _ in scene.ranks))
    per_host = len(scene.ranks) // len(hosts)
    agent = folder / "agent"  # takes the place of ssh: a host is an address
    cases = "".join(
        f"{address}) ns={namespace}; name={name};;\n"
        for address, (namespace, name) in zip(scene.addresses, hosts, strict=True)
    )
    agent.write_text(
        f'#!/bin/sh\ncase "$1" in\n{cases}esac\nshift\n'
        'exec ip netns exec "$ns" unshare --uts sh -c "hostname $name; $*"\n'
    )
    agent.chmod(0o755)
    net = scene.addresses[0].rpartition(".")[0] + ".0/24"
    command = [
        *(
            "ip",
            "netns",
            "exec",
            hosts[0][0],
            "unshare",
            "--uts",
            "sh",
            "-c",
            f'hostname {hosts[0][1]}; exec "$@"',
        ),
        *("sh", str(mpi.prefix / "bin" / "mpirun"), "--prefix", str(mpi.prefix)),
        *("--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "prte_if_include", net),
        *("--mca", "pml", "ob1", "--mca", "btl", "self,sm,tcp", "--mca", "btl_tcp_if_include", net),
        *("--host", ",".join(f"{address}:{per_host}" for address in scene.addresses), "--bind-to", "none"),
        *("-x", "MPI4PY_LIBMPI", "-x", "OMP_NUM_THREADS", "-n", str(len(scene.ranks))),
        *(sys.executable, str(Path(__file__).with_name("links_mpi.py")), ",".join(args.kinds)),
        *(",".join(map(str, args.sizes)), str(args.repeats)),
    ]
    environ = {**os.environ, **mpi.environment(), "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired:
        print("Open MPI does not end on this scene; it is left out")
        return {}
    line = next((text for text in done.stdout.splitlines() if text.startswith("ROWS ")), "")
    if not line:
        print(f"Open MPI does not run on this scene; it is left out: {(done.stderr or done.stdout)[-500:]}")
        return {}
    return {(row["kind"], row["nbytes"]): row["seconds"] for row in json.loads(line[5:])}


def bound_call(
    comm: pycomm.Communicator, kind: str, nbytes: int
) -> tuple[Callable[[str | None], object], Callable[[], bool]]:
    """The call of one size, and whether its result is right."""
    n, r = comm.size, comm.rank
    if kind == "allreduce":
        ramp = np.arange(nbytes // 4, dtype=np.float32) % 1000
        mine, got = ramp + r, np.empty(nbytes // 4, np.float32)
        return (
            lambda name: comm.allreduce(mine, got, algorithm=name),
            lambda: bool(np.array_equal(got, ramp * n + n * (n - 1) / 2)),
        )
    count = nbytes // 4 // n
    ramp = np.arange(count, dtype=np.float32) % 1000
    mine, got = ramp + r, np.empty(count * n, np.float32)
    wanted = (ramp + np.arange(n, dtype=np.float32)[:, None]).ravel()
    return (
        lambda name: comm.allgather(mine, got, algorithm=name),
        lambda: bool(np.array_equal(got, wanted)),
    )


def slowest(comm: pycomm.Communicator, seconds: float) -> float:
    table = np.empty(comm.size)
    comm.allgather(np.array([seconds]), table)
    return float(table.max())


def measure(
    comm: pycomm.Communicator, say: Say, kinds: Sequence[str], sizes: Sequence[int], repeats: int
) -> None:
    """Run every candidate for every size, by turns; say the medians of what the slowest rank took."""
    native = comm.backend == "native"
    for kind in kinds:
        for nbytes in sizes:
            explained = comm.explain(kind, nbytes) if native else None
            names: list[str | None] = [e.planner for e in explained.candidates] if explained else [None]
            call, is_right = bound_call(comm, kind, nbytes)
            times: dict[str | None, list[float]] = {name: [] for name in names}
            for turn in range(repeats + 1):
                for name in names:
                    comm.barrier()
                    began = time.perf_counter()
                    call(name)
                    took = slowest(comm, time.perf_counter() - began)
                    if not is_right():
                        raise Failed(f"{kind} of {nbytes} bytes by {name}: wrong result on rank {comm.rank}")
                    if turn:
                        times[name].append(took)
            medians = {str(name): statistics.median(all_) for name, all_ in times.items()}
            row = {"kind": kind, "nbytes": nbytes, "times": medians}
            if explained:
                predicted = {e.planner: e.seconds for e in explained.candidates}
                row |= {"predicted": predicted, "chosen": explained.chosen.partition(",")[0]}
                row["label"] = explained.chosen
                row["limit"] = explained.limit.seconds if explained.limit else 0.0
            say("row", **row)
    placed = comm.network() if native else None
    say("network", text=dumps(placed.topology) if placed else "")


def rows_of(rank: Rank) -> list[dict]:
    return [event for event in rank.events if event["event"] == "row"]


def show(title: str, rows: list[dict], beside: dict[tuple[str, int], dict[str, float]]) -> float:
    """Print a table; returns the worst ratio of a choice to the best."""
    print(f"\n{title}: times in ms, medians")
    others = sorted({name for found in beside.values() for name in found})
    head = f"{'collective':<12}{'bytes':>9}  {'choice':<28}{'took':>8}{'model':>8}{'bound':>8}  "
    print(head + f"{'best':<20}{'took':>8}{'ratio':>7}" + "".join(f"{'/ ' + name:>10}" for name in others))
    worst = 0.0
    for row in rows:
        took = row["times"][row["chosen"]]
        best = min(row["times"], key=row["times"].__getitem__)
        ratio = took / row["times"][best]
        worst = max(worst, ratio)
        found = beside.get((row["kind"], row["nbytes"]), {})
        print(
            f"{row['kind']:<12}{row['nbytes']:>9}  {row['label']:<28}{took * 1e3:>8.1f}"
            f"{row['predicted'][row['chosen']] * 1e3:>8.1f}{row['limit'] * 1e3:>8.1f}  "
            f"{best:<20}{row['times'][best] * 1e3:>8.1f}{ratio:>7.2f}"
            + "".join(f"{found[name] / took:>9.2f}x" if name in found else f"{'-':>10}" for name in others)
        )
    return worst


def show_all(rows: list[dict]) -> None:
    """Print every candidate's time and prediction."""
    for row in rows:
        print(f"  {row['kind']} {row['nbytes']}")
        for name, took in sorted(row["times"].items(), key=lambda item: item[1]):
            predicted = row["predicted"][name]
            print(
                f"    {name:<22}{took * 1e3:>9.1f} ms, predicted {predicted * 1e3:>9.1f} "
                f"({predicted / took:.2f})"
            )


def show_network(text: str) -> None:
    """Print the links of a topology."""
    topology = loads(text)
    for number, link in enumerate(topology.links):
        if link.bytes_per_s < 10**9:
            print(f"  {topology.link_name(number):<24}{link.bytes_per_s * 8 / 1e6:>8.1f} Mbit/s")
    for note in topology.notes:
        print(f"  note: {note}")


def look(name: str, args: argparse.Namespace) -> float:
    """Print what the probe makes of a scene; all ranks have to agree, and nothing may be wrong with it."""
    with standing(name, args.mbit, args.slow) as scene:

        def body(comm: pycomm.Communicator, say: Say) -> None:
            placed = comm.network()
            say("network", text=dumps(placed.topology) if placed else "", at_end=time.monotonic())

        began = time.monotonic()
        ranks = on_scene(scene, body, "probe")
        run_to_end(ranks, 120)
        texts = {get(rank, "network")["text"] for rank in ranks}
        if len(texts) != 1:
            raise Failed("the ranks disagree about what was measured")
        text = texts.pop()
        topology = loads(text)
        if wrong := [*problems(topology)]:
            raise Failed(f"what was measured is no network: {wrong}")
        took, hosts = get(ranks[0], "network")["at_end"] - began, len(set(topology.host_numbers()))
        print(f"\n{name}: {len(topology.devices)} ranks on {hosts} hosts, probed in {took:.1f} s")
        show_network(text)
    return 0.0


def run_scene(name: str, args: argparse.Namespace) -> float:
    """Measure one scene with each source of the topology; returns the worst ratio."""
    worst = 0.0
    with standing(name, args.mbit, args.slow) as scene, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.toml"
        file.write_text(dumps(scene.topology))
        limit_s = 600.0

        def body(comm: pycomm.Communicator, say: Say) -> None:
            measure(comm, say, args.kinds, args.sizes, args.repeats)

        beside: dict[tuple[str, int], dict[str, float]] = {}
        if args.gloo and find_spec("torch") is not None:
            ranks = on_scene(scene, body, "none", "gloo")
            run_to_end(ranks, limit_s)
            for row in rows_of(ranks[0]):
                beside[row["kind"], row["nbytes"]] = {"gloo": row["times"]["None"]}
        if args.mpi:
            for point, seconds in by_mpi(scene, args, Path(folder)).items():
                beside.setdefault(point, {})["openmpi"] = seconds
        for source in args.sources:
            ranks = on_scene(scene, body, str(file) if source == "file" else source)
            run_to_end(ranks, limit_s)
            rows = rows_of(ranks[0])
            worst = max(worst, show(f"{name}, topology: {source}", rows, beside))
            if args.all:
                show_all(rows)
            if args.show_network:
                show_network(get(ranks[0], "network")["text"])
            if args.output:
                with Path(args.output).open("a") as out:
                    out.write(json.dumps({"scene": name, "source": source, "rows": rows}) + "\n")
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene", choices=(*SCENES, "all"))
    parser.add_argument("--mbit", type=int, default=200, help="rate of the fast links")
    parser.add_argument("--slow", type=int, default=50, help="rate of the slow ones")
    parser.add_argument(
        "--sizes", type=lambda t: [int(s) for s in t.split(",")], default=[32768, 262144, 2097152]
    )
    parser.add_argument("--kinds", type=lambda t: t.split(","), default=["allreduce", "allgather"])
    parser.add_argument("--sources", type=lambda t: t.split(","), default=["file", "probe"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-gloo", dest="gloo", action="store_false")
    parser.add_argument("--no-mpi", dest="mpi", action="store_false")
    parser.add_argument("--all", action="store_true", help="print every candidate")
    parser.add_argument("--show-network", action="store_true", help="print the topology that was used")
    parser.add_argument(
        "--probe-only", action="store_true", help="print what the probe finds, and measure nothing"
    )
    parser.add_argument("--output", help="append what was measured to this file, as JSON lines")
    parser.add_argument("--no-judge", dest="judge", action="store_false", help="do not fail on a slow choice")
    args = parser.parse_args()
    worst = 0.0
    try:
        for name in SCENES if args.scene == "all" else (args.scene,):
            worst = max(worst, (look if args.probe_only else run_scene)(name, args))
    except Failed as failure:
        print(f"{args.scene}: FAILED: {failure}")
        return 1
    print(f"\nworst ratio of a choice to the best: {worst:.3f}")
    return 1 if args.judge and worst > SLACK else 0


if __name__ == "__main__":
    sys.exit(main())
