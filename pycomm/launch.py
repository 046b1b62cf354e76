"""Who am I: rank, size and meeting point of this process, read from the environment that its launcher made.

========  ===========================================================  ====================================
launcher  rank, size, ranks on this host                               where ranks of several hosts meet
========  ===========================================================  ====================================
torchrun  RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, TORCHELASTIC_RUN_ID      MASTER_ADDR, a port derived from it
Open MPI  OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_SIZE                     PYCOMM_STORE, or MASTER_ADDR, _PORT
PMI       PMI_RANK, PMI_SIZE, MPI_LOCALNRANKS (MPICH, Intel MPI)       PYCOMM_STORE, or MASTER_ADDR, _PORT
Slurm     SLURM_PROCID, SLURM_STEP_NUM_TASKS, SLURM_STEP_NUM_NODES     first host of the list, derived port
plain     RANK or JOB_COMPLETION_INDEX, WORLD_SIZE (Kubernetes jobs)   MASTER_ADDR, MASTER_PORT
========  ===========================================================  ====================================

torchrun itself listens on MASTER_PORT, and Slurm names no port at all. There rank 0 takes the first free port
of a short list derived from the job's id, and the others try that list until a store proves that it knows the
job's secret.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pycomm.errors import UsageError

__all__ = ["Placement", "derived_ports", "detect", "expand_hosts", "is_loopback"]

_LOOPBACK: Final = re.compile(r"^(localhost|127(\.\d+){3}|\[?::1\]?)$")
_DERIVED_PORTS: Final = 8


@dataclass(frozen=True, slots=True)
class Placement:
    """The place of this process in its job.

    Attributes
    ----------
    rank, size : int
        Number of this process, and how many there are.
    launcher : str
        Who started it: ``"torchrun"``, ``"openmpi"``, ``"pmi"``, ``"slurm"``, ``"plain"``, ``"arguments"`` or
        ``"alone"``.
    job : str
        What this job has in common and no other job of this user has.
    is_local : bool
        Whether all ranks are known to run on this host.
    host, ports : str, tuple of int
        Where rank 0's store listens: the first free of these ports; ``""`` when the launcher does not say.
    """

    rank: int
    size: int
    launcher: str
    job: str = ""
    is_local: bool = False
    host: str = ""
    ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Launcher:
    """The variables of one launcher. The first one that is set counts."""

    name: str
    marker: str
    rank: tuple[str, ...]
    size: tuple[str, ...]
    local_size: tuple[str, ...] = ()
    nhosts: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    has_unique_id: bool = False


# Innermost first: a launcher that starts another one leaves its own variables in the environment of the
# ranks.
_LAUNCHERS: Final = (
    _Launcher(
        "torchrun",
        "TORCHELASTIC_RUN_ID",
        ("RANK",),
        ("WORLD_SIZE",),
        ("LOCAL_WORLD_SIZE",),
        ids=("TORCHELASTIC_RUN_ID", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
    ),
    _Launcher(
        "openmpi",
        "OMPI_COMM_WORLD_RANK",
        ("OMPI_COMM_WORLD_RANK",),
        ("OMPI_COMM_WORLD_SIZE",),
        ("OMPI_COMM_WORLD_LOCAL_SIZE",),
        ids=("PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid", "OMPI_MCA_orte_hnp_uri"),
    ),
    _Launcher(
        "pmi",
        "PMI_RANK",
        ("PMI_RANK",),
        ("PMI_SIZE",),
        ("MPI_LOCALNRANKS",),
        ids=("PMI_PORT", "PMI_JOBID", "HYDI_CONTROL_FD"),
    ),
    _Launcher(
        "slurm",
        "SLURM_STEP_ID",
        ("SLURM_PROCID",),
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        nhosts=("SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
        ids=("SLURM_JOB_ID", "SLURM_STEP_ID"),
        has_unique_id=True,
    ),
    _Launcher(
        "plain", "WORLD_SIZE", ("RANK", "JOB_COMPLETION_INDEX"), ("WORLD_SIZE",), ("LOCAL_WORLD_SIZE",)
    ),
)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> tuple[str, str]:
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _number(environ: Mapping[str, str], names: tuple[str, ...], why: str) -> tuple[str, int]:
    name, text = _first(environ, names)
    if not name:
        raise UsageError(f"{' or '.join(names)} is not set, but {why}; set it, or pass rank and size to init")
    if not text.strip().isdigit():
        raise UsageError(f"{name}={text!r} is not a whole number, 0 or more")
    return name, int(text)


def expand_hosts(text: str) -> list[str]:
    """Expand a Slurm host list: ``"n[1-3,07],x"`` is n1, n2, n3, n07, x.

    Raises
    ------
    UsageError
        The text is not a host list.
    """
    parts = re.findall(r"(?:[^,\[\]]+|\[[^\[\]]*\])+", text)
    if ",".join(parts) != text:
        raise UsageError(f"{text!r} is not a host list like 'n[1-3],x7'")
    hosts: list[str] = []
    for part in parts:
        names = [""]
        for literal, ranges in re.findall(r"([^\[\]]+)|\[([^\[\]]*)\]", part):
            tails = [literal] if literal else _expand_ranges(ranges, text)
            names = [name + tail for name in names for tail in tails]
        hosts.extend(names)
    return hosts


def _expand_ranges(ranges: str, text: str) -> list[str]:
    tails: list[str] = []
    for item in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", item)
        if match is None or (match[2] and int(match[2]) < int(match[1])):
            raise UsageError(f"{text!r} is not a host list: {item!r} is not a range like '1-3'")
        last = int(match[2] or match[1])
        tails.extend(f"{i:0{len(match[1])}d}" for i in range(int(match[1]), last + 1))
    return tails


def derived_ports(job: str) -> tuple[int, ...]:
    """List the ports at which rank 0 of a job may listen: below the range of outgoing connections."""
    seed = int.from_bytes(hashlib.sha256(job.encode()).digest()[:4], "little")
    return tuple(20000 + (seed + 997 * i) % 12000 for i in range(_DERIVED_PORTS))


def _parent_outside(marker: str, value: str) -> str:
    """Name the launcher's process: the nearest ancestor that does not carry the rank variable itself.

    Shells between the launcher and this process inherit the variable, so all ranks of a host find the same
    process.
    """
    pid = os.getppid()
    while pid > 1:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            break
        if not any(entry.startswith(f"{marker}=".encode()) for entry in environ):
            return f"{pid}@{stat[19]}"
        pid = int(stat[1])
    return f"{pid}@{value}"


def detect(environ: Mapping[str, str], *, rank: int | None = None, size: int | None = None) -> Placement:
    """Find out this process's place.

    Parameters
    ----------
    environ
        The environment, as ``os.environ``.
    rank, size
        What the caller says; goes before the environment.

    Raises
    ------
    UsageError
        Variables are missing, are not numbers, or contradict one another; the message names them.
    """
    if rank is not None or size is not None:
        return _from_arguments(rank, size)
    present = [launcher for launcher in _LAUNCHERS if environ.get(launcher.marker)]
    present = [p for p in present if p.name != "slurm" or environ.get("SLURM_PROCID")]
    if not present:
        name, _ = _first(environ, ("RANK", "LOCAL_WORLD_SIZE"))
        if name == "RANK":
            raise UsageError("RANK is set, but WORLD_SIZE is not; set both, or pass rank and size to init")
        return Placement(0, 1, "alone")
    chosen = present[0]
    _refuse_contradiction(environ, chosen, present[1:])
    return _from_launcher(environ, chosen)


def _from_arguments(rank: int | None, size: int | None) -> Placement:
    if rank is None or size is None:
        given, missing = ("rank", "size") if size is None else ("size", "rank")
        raise UsageError(f"init was given {given} but not {missing}; pass both or neither")
    if size < 1 or not 0 <= rank < size:
        raise UsageError(f"rank={rank} and size={size} contradict each other; ranks are 0 to size - 1")
    return Placement(rank, size, "arguments")


def _refuse_contradiction(environ: Mapping[str, str], chosen: _Launcher, others: list[_Launcher]) -> None:
    """Two launchers of equal standing that disagree: nobody can tell which one is meant."""
    rivals = {"torchrun": (), "slurm": ()}.get(chosen.name, ("pmi", "plain"))
    for other in others:
        if other.name not in rivals:
            continue  # an outer launcher that started the chosen one
        for mine, theirs in ((chosen.rank, other.rank), (chosen.size, other.size)):
            name, value = _first(environ, mine)
            other_name, other_value = _first(environ, theirs)
            if name and other_name and value != other_value:
                raise UsageError(
                    f"{name}={value} (from {chosen.name}) contradicts {other_name}={other_value} (from "
                    f"{other.name}); "
                    "unset the variables of the one that did not start this job, or pass rank and size to "
                    "init"
                )


def _from_launcher(environ: Mapping[str, str], launcher: _Launcher) -> Placement:
    why = f"{launcher.marker} says that {launcher.name} started this process"
    rank_name, rank = _number(environ, launcher.rank, why)
    size_name, size = _number(environ, launcher.size, why)
    if rank >= size:
        raise UsageError(f"{rank_name}={rank} contradicts {size_name}={size}; ranks are 0 to size - 1")
    local_name, local_text = _first(environ, launcher.local_size)
    hosts_name, hosts_text = _first(environ, launcher.nhosts)
    is_local = (bool(local_name) and local_text == str(size)) or (bool(hosts_name) and hosts_text == "1")
    ids = [environ[name] for name in launcher.ids if environ.get(name)]
    if is_local and not launcher.has_unique_id:
        ids.append(_parent_outside(launcher.rank[0], environ.get(launcher.rank[0], "")))
    job = "/".join((launcher.name, *ids))
    host, ports = _meeting_point(environ, launcher, job)
    return Placement(rank, size, launcher.name, job, is_local, host, ports)


def _meeting_point(environ: Mapping[str, str], launcher: _Launcher, job: str) -> tuple[str, tuple[int, ...]]:
    if launcher.name == "slurm":
        _, nodes = _first(environ, ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"))
        return (expand_hosts(nodes)[0], derived_ports(job)) if nodes else ("", ())
    host = environ.get("MASTER_ADDR", "")
    if not host:
        return "", ()
    if launcher.name == "torchrun":
        return host, derived_ports(job)
    if not environ.get("MASTER_PORT"):
        raise UsageError(f"MASTER_ADDR={host} is set, but MASTER_PORT is not; set both")
    _, port = _number(environ, ("MASTER_PORT",), "MASTER_ADDR is")
    return host, (port,)


def is_loopback(host: str) -> bool:
    """Whether an address only reaches this host."""
    return _LOOPBACK.match(host) is not None
