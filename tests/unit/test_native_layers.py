"""The include rules of the C++ core: who may know whom."""

from __future__ import annotations

import re
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "native"
# Folder of native/src -> folders of native/src whose headers it may include, besides its own.
MAY_INCLUDE = {
    "base": set(),
    "reduce": {"base"},
    "verify": {"base"},
    "network": {"base"},
    "flat": {"base"},
    "transport/inproc": {"base"},
    "transport/shm": {"base"},
    "transport/tcp": {"base", "net"},
    "executor": {"base"},
    "net": {"base", "transport/tcp"},
    "group": {"base", "net", "transport/shm"},
}


def folder_of(path: Path) -> str:
    relative = path.relative_to(NATIVE / "src")
    return "/".join(relative.parts[:2]) if relative.parts[0] == "transport" else relative.parts[0]


def test_sources_include_only_what_their_layer_may_know() -> None:
    seen = set()
    for path in sorted((NATIVE / "src").rglob("*.[ch]*")):
        folder = folder_of(path)
        seen.add(folder)
        for included in re.findall(r'#include "([^"]+)"', path.read_text()):
            if included.startswith("pycomm/"):
                continue
            target = folder_of(NATIVE / "src" / included)
            assert target in MAY_INCLUDE[folder] | {folder}, f"{path.name} includes {included}"
    assert seen == set(MAY_INCLUDE)


def test_only_bindings_include_pybind11() -> None:
    for path in (NATIVE / "src").rglob("*.[ch]*"):
        assert "pybind11" not in path.read_text(), path
    for path in (NATIVE / "include").rglob("*.h"):
        assert "pybind11" not in path.read_text(), path
