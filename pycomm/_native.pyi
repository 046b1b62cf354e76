"""Types of the compiled core, kept by hand: one section per file of native/bindings."""

from collections.abc import Callable
from typing import final

import numpy as np
import numpy.typing as npt

_Bytes = npt.NDArray[np.uint8]
_Int32s = npt.NDArray[np.int32]
_Int64s = npt.NDArray[np.int64]

core_version: int

# reduce.cc
def reduce(out: _Bytes, a: _Bytes, b: _Bytes, dtype: int, op: int) -> None: ...
def reduce_many(out: _Bytes, inputs: list[_Bytes], dtype: int, op: int, divisor: int = 1) -> None: ...
def scale(out: _Bytes, a: _Bytes, dtype: int, factor: float) -> None: ...
def divide(out: _Bytes, a: _Bytes, dtype: int, divisor: int) -> None: ...
def isa() -> str: ...

# verify.cc
def verify_match(
    ops: _Int32s, offsets: _Int64s
) -> tuple[_Int32s, _Int32s, list[tuple[int, int, int, int, int]]]: ...
def verify_run(
    ops: _Int32s,
    offsets: _Int64s,
    lane: _Int32s,
    partner: _Int32s,
    bases: _Int64s,
    initial: _Int32s,
    wanted: _Int32s,
    source: _Int32s,
    capacity: int,
    idempotent: bool,
) -> tuple[list[tuple[str, int, int, int, list[int]]], int, _Int64s, int]: ...

# network.cc
def network_bound(
    nranks: int, nvertices: int, src: _Int32s, dst: _Int32s, capacity: _Int64s, weights: _Int64s
) -> tuple[int, int, _Bytes]: ...
def network_separate(
    nranks: int, nvertices: int, src: _Int32s, dst: _Int32s, capacity: _Int64s, weights: _Int64s
) -> list[_Bytes]: ...
def network_pack(
    nranks: int, nvertices: int, src: _Int32s, dst: _Int32s, capacity: _Int64s, roots: _Int64s
) -> tuple[_Int32s, _Int64s, _Int64s, _Int64s, _Int32s, int]: ...

# engine.cc
@final
class StoreServer:
    def __init__(self, host: str, port: int, secret: str, family: int) -> None: ...
    @property
    def port(self) -> int: ...

@final
class StoreClient:
    def __init__(self, host: str, port: int, secret: str, family: int, timeout_s: float) -> None: ...
    def set(self, key: str, value: bytes, timeout_s: float) -> None: ...
    def get(self, key: str, timeout_s: float) -> bytes: ...
    def close(self) -> None: ...

@final
class Context:
    def __init__(
        self,
        rank: int,
        size: int,
        store_host: str,
        store_port: int,
        secret: str,
        interface: str,
        family: int,
        timeout_s: float,
        allow_shared_memory: bool,
        tcp_connections: int,
    ) -> None: ...
    def goodbye(self) -> None: ...

@final
class Work:  # made by Group only
    def done(self) -> bool: ...
    def wait(self, timeout_s: float) -> int: ...

@final
class Plan: ...  # made by bind_plan only

def bind_plan(
    kind: int,
    rank: int,
    nranks: int,
    root: int,
    pieces: int,
    in_place: bool,
    itemsize: int,
    ops: _Int32s,
    input: _Int64s,
    output: _Int64s,
    scratch: _Int64s,
    digest: int,
) -> Plan: ...
def interface_host(interface: str, family: int) -> str: ...

@final
class Group:
    def __init__(
        self,
        context: Context,
        id: int,
        name: str,
        members: list[int],
        rank: int,
        timeout_s: float,
        use_flat: bool,
        single_copy: bool,
    ) -> None: ...
    @property
    def flat_ready(self) -> bool: ...
    @property
    def transports(self) -> list[str]: ...
    @property
    def last_seq(self) -> int: ...
    def direct(self, by_address: bool = False) -> Callable[..., bool]: ...
    def launch_at(self, keep: object, *args: object) -> Work | None: ...
    def collective(
        self,
        kind: int,
        dtype: int,
        op: int,
        root: int,
        count: int,
        send: _Bytes | None,
        recv: _Bytes | None,
        counts: _Int64s | None,
        factor: float,
        round_once: bool,
        plan: Plan | None,
        timeout_s: float,
        blocking: bool,
    ) -> Work | None: ...
    def message(
        self,
        is_send: bool,
        peer: int,
        tag: int,
        buffer: _Bytes | None,
        dtype: int,
        timeout_s: float,
        courier: bool,
    ) -> Work: ...
    def abort(self, reason: str) -> None: ...
    def close(self) -> None: ...
