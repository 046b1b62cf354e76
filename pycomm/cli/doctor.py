"""``pycomm doctor``: what is installed, what works here, and what to do about the rest.

Every fact is gathered by a function that returns plain data; problems are collected along the way, each a
sentence that says what to do. Nothing is changed on the machine.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import platform
import resource
import shutil
import socket
import struct
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import click

import pycomm
from pycomm.backends.registry import backend_names, get_backend
from pycomm.cli.render import print_facts, print_json, print_table
from pycomm.config import SETTINGS, unknown_variables
from pycomm.errors import PycommError, UsageError
from pycomm.units import format_size_rounded

__all__ = ["command", "examine"]

_PACKAGES: Final = ("numpy", "msgspec", "click", "networkx", "torch", "mpi4py", "ml_dtypes", "matplotlib")
_LAUNCHERS: Final = ("torchrun", "mpiexec", "mpirun", "srun")
_LIMITS: Final = (
    ("nofile", resource.RLIMIT_NOFILE, "open files and sockets"),
    ("memlock", resource.RLIMIT_MEMLOCK, "locked bytes"),
    ("nproc", resource.RLIMIT_NPROC, "processes and threads"),
)
_MIN_NOFILE: Final = 1024
_SIOCGIFADDR: Final = 0x8915

Facts = dict[str, Any]


@click.command("doctor", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what is installed, which backends work here, and what is wrong (exit code 1)."""
    facts = examine()
    if as_json:
        print_json(facts)
    else:
        _print(facts)
    ctx.exit(1 if facts["problems"] else 0)


def examine() -> Facts:
    """Gather every fact, and under ``"problems"`` what should be mended."""
    problems: list[str] = []
    return {
        "versions": _versions(),
        "core": _core(problems),
        "backends": _backends(problems),
        "machine": _machine(problems),
        "limits": _limits(problems),
        "interfaces": _interfaces(),
        "launchers": {name: shutil.which(name) for name in _LAUNCHERS},
        "settings": _settings(problems),
        "problems": problems,
    }


def _versions() -> Facts:
    return {
        "pycomm": _version("pycomm-collectives"),
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _core(problems: list[str]) -> Facts:
    """Look at the compiled core without trusting it to load."""
    spec = find_spec("pycomm._native")
    path = Path(spec.origin) if spec is not None and spec.origin else None
    facts: Facts = {"path": str(path) if path else None, "isa": None, "loads": False, "is_stale": False}
    if path is None:
        problems.append("the compiled core is missing: pip install --no-build-isolation -e .")
        return facts
    newest = _newest_source()
    if newest is not None and path.exists() and newest.stat().st_mtime > path.stat().st_mtime:
        facts["is_stale"] = True
        problems.append(
            f"the compiled core is older than {newest.name}: pip install --no-build-isolation -e ."
        )
    try:
        from pycomm.core import native

        facts["loads"] = True
        facts["isa"] = native.isa()
    except (ImportError, AttributeError, PycommError) as error:
        problems.append(f"the compiled core does not work: {error}")
    return facts


def _newest_source() -> Path | None:
    """Newest C++ file, where pycomm is used from its source tree."""
    native = Path(pycomm.__file__).parent.parent / "native"
    files = [path for folder in ("src", "include", "bindings") for path in (native / folder).rglob("*.*")]
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def _backends(problems: list[str]) -> list[Facts]:
    found: list[Facts] = []
    for name in backend_names():
        try:
            reason = get_backend(name, usable=False).available()
        except Exception as error:  # whatever a backend's import trips over is what we are here to report
            reason = f"{type(error).__name__}: {error}"
        found.append({"name": name, "works": reason is None, "reason": reason})
    if not any(backend["works"] and backend["name"] == "native" for backend in found):
        problems.append("the native backend does not work here; its reason is listed under backends")
    return found


def _machine(problems: list[str]) -> Facts:
    shm = shutil.disk_usage("/dev/shm") if Path("/dev/shm").is_dir() else None
    facts: Facts = {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _first_field("/proc/cpuinfo", "model name"),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "shm_bytes": shm.total if shm else None,
        "shm_free_bytes": shm.free if shm else None,
        "memfd": _works(lambda: os.memfd_create("pycomm-doctor")),
        "pidfd": _works(lambda: os.pidfd_open(os.getpid())),
    }
    if not facts["memfd"]:
        problems.append("memfd_create fails here (old kernel or seccomp), so ranks cannot share memory")
    return facts


def _works(open_descriptor: Any) -> bool:
    try:
        os.close(open_descriptor())
    except (OSError, AttributeError):
        # AttributeError: this Python's platform has no such call at all.
        return False
    return True


def _first_field(path: str, name: str) -> str | None:
    file = Path(path)
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _limits(problems: list[str]) -> list[Facts]:
    found: list[Facts] = []
    for name, number, meaning in _LIMITS:
        soft, hard = (
            None if value == resource.RLIM_INFINITY else value for value in resource.getrlimit(number)
        )
        found.append({"name": name, "soft": soft, "hard": hard, "meaning": meaning})
        if name == "nofile" and soft is not None and soft < _MIN_NOFILE:
            problems.append(f"only {soft} open files are allowed; raise it: ulimit -n {_MIN_NOFILE}")
    return found


def _interfaces() -> list[Facts]:
    addresses: dict[str, list[str]] = {name: [] for _, name in socket.if_nameindex()}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name, found in addresses.items():
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # this interface has no IPv4 address
            found.append(socket.inet_ntoa(answer[20:24]))
    table = Path("/proc/net/if_inet6")
    for line in table.read_text().splitlines() if table.is_file() else []:
        digits, *_, name = line.split()
        addresses.setdefault(name, []).append(str(ipaddress.IPv6Address(int(digits, 16))))
    return [{"name": name, "addresses": found} for name, found in addresses.items()]


def _settings(problems: list[str]) -> list[Facts]:
    rows: list[Facts] = []
    for row in SETTINGS.values():
        try:
            value: object = row.value()
        except UsageError as error:
            problems.append(str(error))
            value = "(wrong)"
        if row.is_secret:
            value = "(set)" if value else ""
        rows.append({"variable": row.variable, "value": value, "source": row.source(), "help": row.help})
    problems.extend(f"{name} is no setting of pycomm; misspelt?" for name in unknown_variables())
    return rows


def _print(facts: Facts) -> None:
    _section("Versions")
    print_facts(
        ((name, version or "not installed") for name, version in facts["versions"].items()), indent="  "
    )
    core = facts["core"]
    _section("Compiled core")
    state = "stale" if core["is_stale"] else "works" if core["loads"] else "does not load"
    print_facts((("path", core["path"]), ("state", state), ("instruction set", core["isa"])), indent="  ")
    _section("Backends")
    rows = [(b["name"], "yes" if b["works"] else "no", b["reason"] or "") for b in facts["backends"]]
    print_table(("name", "works", "why not"), rows, indent="  ")
    _section("Machine")
    print_facts(_machine_facts(facts["machine"]), indent="  ")
    _section("Limits")
    limits = [(x["name"], _limit(x["soft"]), _limit(x["hard"]), x["meaning"]) for x in facts["limits"]]
    print_table(("name", "soft", "hard", "of"), limits, indent="  ")
    _section("Interfaces")
    print_facts(((i["name"], " ".join(i["addresses"]) or "-") for i in facts["interfaces"]), indent="  ")
    _section("Launchers")
    print_facts(((name, path or "not found") for name, path in facts["launchers"].items()), indent="  ")
    _section("Settings")
    settings = [(s["variable"], _shown(s["value"]), s["source"], s["help"]) for s in facts["settings"]]
    print_table(("variable", "value", "from", "meaning"), settings, indent="  ")
    click.echo()
    for problem in facts["problems"]:
        click.secho(f"problem: {problem}", fg="red")
    if not facts["problems"]:
        click.secho("no problems found", fg="green")


def _machine_facts(machine: Facts) -> list[tuple[str, object]]:
    shm = machine["shm_bytes"]
    free = "" if shm is None else f", {format_size_rounded(machine['shm_free_bytes'])} free"
    return [
        ("system", machine["system"]),
        ("cpu", machine["cpu"] or "unknown"),
        ("cores", f"{machine['cores_usable']} usable of {machine['cores']}"),
        ("memory", format_size_rounded(machine["memory_bytes"])),
        ("/dev/shm", "none" if shm is None else format_size_rounded(shm) + free),
        ("memfd", "yes" if machine["memfd"] else "no"),
        ("pidfd", "yes" if machine["pidfd"] else "no"),
    ]


def _section(title: str) -> None:
    click.echo()
    click.secho(title, bold=True)


def _limit(value: int | None) -> str:
    return "none" if value is None else str(value)


def _shown(value: object) -> str:
    return ("1" if value else "0") if isinstance(value, bool) else str(value)
