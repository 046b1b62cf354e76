"""Every ``PYCOMM_*`` setting, in one table.

A setting is read from the environment each time it is asked for, so a change in ``os.environ`` counts from
the next communicator on. Arguments in code come before settings, settings before the defaults below.
``pycomm doctor`` prints the table with the values in force.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, overload

from pycomm.errors import UsageError
from pycomm.units import parse_time

__all__ = ["SETTINGS", "Setting", "Value", "setting", "unknown_variables"]

Value = bool | int | float | str
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_LEVELS = frozenset({"debug", "info", "warning", "error", "critical", "off"})
_BoolName = Literal["cma", "flat", "round_once", "shm"]
_IntName = Literal["family", "tcp_connections"]
_FloatName = Literal["timeout_s"]
_StrName = Literal["algo", "backend", "events", "interface", "log", "secret", "store", "topology", "tuning"]


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    Parameters
    ----------
    name
        What :func:`setting` is asked for; the variable is ``PYCOMM_`` and the name in capitals.
    default
        Value when the variable is unset or empty; its type is the setting's.
    help
        One line for people.
    expects
        What a value must look like; shown when one does not.
    read
        Turns text into the value; raises ``ValueError`` when it cannot.
    is_secret
        Whether the value must never be shown.
    """

    name: str
    default: Value
    help: str
    expects: str
    read: Callable[[str], Value]
    is_secret: bool = False

    @property
    def variable(self) -> str:
        """Name of the environment variable."""
        return f"PYCOMM_{self.name.upper()}"

    def value(self, environ: Mapping[str, str] | None = None) -> Value:
        """Return the value in force; raises ``UsageError`` naming the variable when the text does not fit."""
        text = (os.environ if environ is None else environ).get(self.variable, "").strip()
        if not text:
            return self.default
        try:
            return self.read(text)
        except ValueError:
            shown = "its value" if self.is_secret else repr(text)
            raise UsageError(f"{self.variable}: {shown} will not do; expected {self.expects}") from None

    def source(self, environ: Mapping[str, str] | None = None) -> str:
        """Say where the value comes from: ``"environment"`` or ``"default"``."""
        text = (os.environ if environ is None else environ).get(self.variable, "").strip()
        return "environment" if text else "default"


def _flag(text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


def _one_of(*allowed: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if value not in allowed:
            raise ValueError(text)
        return value

    return read


def _from_to(low: int, high: int) -> Callable[[str], int]:
    return _one_of(*range(low, high + 1))


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = parse_time(text)
    if not (math.isfinite(value) and value > 0):
        raise ValueError(text)
    return value


def _host_port(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise ValueError(text)
    return text


def _log_spec(text: str) -> str:
    for item in text.split(","):
        if item.rpartition("=")[2].strip().lower() not in _LEVELS:
            raise ValueError(text)
    return text


_BOOL: Final = "1 or 0"
_LOG: Final = "debug, info, warning, error, critical or off, with 'part=' before it for one part of pycomm"
_TABLE = (
    Setting("algo", "", "force algorithms, e.g. 'ring' or 'allreduce:ring'", "algorithms", str),
    Setting("backend", "native", "backend, where pycomm.init() names none", "a backend's name", str),
    Setting("cma", True, "read large messages from a peer's memory where the system allows it", _BOOL, _flag),
    Setting(
        "events", "", "folder for the event dump of a failed communicator; none when empty", "a folder", str
    ),
    Setting("family", 0, "address family of TCP: 4, 6 or 0 for either", "0, 4 or 6", _one_of(0, 4, 6)),
    Setting("flat", True, "use the engine's own collectives where all ranks share memory", _BOOL, _flag),
    Setting("interface", "", "network interface of TCP; chosen when empty", "its name", str),
    Setting("log", "", "log levels, e.g. 'info,planner=debug'", _LOG, _log_spec),
    Setting("round_once", False, "round half types once in all, not once per contribution", _BOOL, _flag),
    Setting("secret", "", "the job's secret, the same on every rank", "any text", str, is_secret=True),
    Setting("shm", True, "use shared memory between ranks of one host", _BOOL, _flag),
    Setting("store", "", "where ranks meet, host:port of rank 0's store", "host:port", _host_port),
    Setting("tcp_connections", 2, "TCP connections per peer", "a number from 1 to 64", _from_to(1, 64)),
    Setting("timeout_s", 300.0, "deadline of every wait", "seconds above 0, e.g. '300' or '5 min'", _seconds),
    Setting(
        "topology",
        "detect",
        "the network: a file or a name of the catalogue, detect, probe or none",
        "a file, a name, detect, probe or none",
        str,
    ),
    Setting("tuning", "", "file of measured choices, which override prediction", "a file", str),
)
SETTINGS: Final[Mapping[str, Setting]] = {row.name: row for row in _TABLE}
"""Every setting by name, in alphabetical order."""


@overload
def setting(name: _BoolName) -> bool: ...
@overload
def setting(name: _IntName) -> int: ...
@overload
def setting(name: _FloatName) -> float: ...
@overload
def setting(name: _StrName) -> str: ...


def setting(name: str) -> Value:
    """Value of a setting, from the environment or its default.

    Parameters
    ----------
    name
        Name in the table, e.g. ``"timeout_s"`` for ``PYCOMM_TIMEOUT_S``.

    Raises
    ------
    UsageError
        If the variable's text does not fit; the message names the variable and what it expects.

    Examples
    --------
    >>> setting("tcp_connections")
    2
    """
    return SETTINGS[name].value()


def unknown_variables(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """``PYCOMM_*`` variables that no setting reads: most likely typing errors."""
    known = {row.variable for row in SETTINGS.values()}
    names = os.environ if environ is None else environ
    return tuple(sorted(name for name in names if name.startswith("PYCOMM_") and name not in known))
