"""Real topology files with independent counts, in the folder that PYCOMM_TOPOFILES names."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("PYCOMM_TOPOFILES", ""))
TOOL = Path(__file__).parents[2] / "benchmarks" / "check_topofiles.py"


@pytest.mark.skipif(
    "PYCOMM_TOPOFILES" not in os.environ, reason="PYCOMM_TOPOFILES names no folder of real files"
)
def test_counts_are_equal() -> None:
    check = runpy.run_path(str(TOOL))["check"]
    expected = json.loads((FOLDER / "expected.json").read_text())
    assert expected
    wrong = {name: found for name, want in expected.items() if (found := check(FOLDER / name, want)[0])}
    assert not wrong
