"""What all tests share: golden files and hypothesis profiles."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite golden files; review them as a diff"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str | bytes], None]:
    """Compare content with the file of this name in tests/golden."""

    def compare(name: str, content: str | bytes) -> None:
        path = Path(__file__).parent / "golden" / name
        data = content.encode() if isinstance(content, str) else content
        if request.config.getoption("--update-golden"):
            path.write_bytes(data)
        assert path.is_file(), f"{path} is missing; pytest --update-golden writes it"
        assert data.decode() == path.read_text(), (
            f"{name} differs; review with pytest --update-golden, git diff"
        )

    return compare
