"""Links in the documents lead somewhere, and paths in backticks exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
TOPS = ("pycomm/", "native/", "tests/", "docs/", "benchmarks/", "topologies/", ".ci/")
PACKAGE = ("schedule/", "planner/", "verify/", "collectives/", "backends/", "export/")


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def broken(page: Path, text: str) -> list[str]:
    """Links and paths of a page that lead nowhere."""
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    found = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    for path in re.findall(r"`([\w./-]+(?:\.\w+|/))`", text):  # files, and folders with their slash
        root = ROOT if path.startswith(TOPS) else ROOT / "pycomm" if path.startswith(PACKAGE) else None
        if root is not None and "NAME" not in path and not (root / path).exists():
            found.append(path)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_exist(page: Path) -> None:
    assert broken(page, prose(page)) == []


def test_the_check_finds_what_is_broken() -> None:
    text = "[gone](gone.md) [here](README.md#top) [web](https://x.org) `pycomm/gone.py` `planner/base.py`"
    assert broken(ROOT / "docs" / "page.md", text) == ["gone.md", "pycomm/gone.py"]


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    pages = [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "README.md"]
    assert [name for name in pages if f"]({name})" not in index] == []
