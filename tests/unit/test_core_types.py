"""The enumerations of Python and C++ are the same numbers: they travel on the wire."""

from __future__ import annotations

import re
from enum import IntEnum
from pathlib import Path

import pytest

from pycomm.types import CollectiveKind, DType, ReduceOp

HEADER = Path(__file__).parents[2] / "native" / "include" / "pycomm" / "types.h"
OTHER_NAMES = {"boolean": "bool"}  # words that C++ keeps for itself


@pytest.mark.parametrize(
    ("enum", "cxx"), [(CollectiveKind, "Kind"), (DType, "DType"), (ReduceOp, "ReduceOp")]
)
def test_enumerations_agree(enum: type[IntEnum], cxx: str) -> None:
    body = re.search(rf"enum class {cxx} : std::uint8_t \{{(.*?)\}}", HEADER.read_text(), re.S)
    assert body is not None
    names = [OTHER_NAMES.get(n, n) for n in re.findall(r"\w+", body[1])]
    assert names == [member.name.lower() for member in enum]
    assert [member.value for member in enum] == list(range(len(names)))


def test_item_sizes_agree() -> None:
    sizes = re.search(r"kSizes\[\] = \{(.*?)\}", HEADER.read_text())
    assert sizes is not None
    assert [int(s) for s in sizes[1].split(",")] == [dtype.itemsize for dtype in DType]
