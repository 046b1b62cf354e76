"""Types of the compiled core, kept by hand: one section per file of native/bindings."""

from typing import Any

import numpy as np
import numpy.typing as npt

core_version: int

# reduce.cc
Bytes = npt.NDArray[np.uint8]

def reduce(out: Bytes, a: Bytes, b: Bytes, dtype: int, op: int) -> None: ...
def reduce_many(out: Bytes, inputs: list[Bytes], dtype: int, op: int, divisor: int = 1) -> None: ...
def scale(out: Bytes, a: Bytes, dtype: int, factor: float) -> None: ...
def divide(out: Bytes, a: Bytes, dtype: int, divisor: int) -> None: ...
def isa() -> str: ...

# verify.cc
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]

def verify_match(
    ops: Int32s, offsets: Int64s
) -> tuple[Int32s, Int32s, list[tuple[int, int, int, int, int]]]: ...
def verify_run(
    ops: Int32s,
    offsets: Int64s,
    lane: Int32s,
    partner: Int32s,
    bases: Int64s,
    initial: Int32s,
    wanted: Int32s,
    source: Int32s,
    capacity: int,
    idempotent: bool,
) -> tuple[list[tuple[str, int, int, int, list[int]]], int, Int64s, int]: ...

# engine.cc
def __getattr__(name: str) -> Any: ...
