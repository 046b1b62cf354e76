"""Wrong topology files, one for each mistake; a comment says the line and the message that it must give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pycomm.errors import TopologyError
from pycomm.topology.files import load

pytestmark = pytest.mark.timeout(60)

FILES = sorted((Path(__file__).parent / "topologies").glob("*.toml"))


def test_there_are_files() -> None:
    assert len(FILES) > 40


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_refused_with_line_and_reason(file: Path) -> None:
    expected = re.search(r"# (\d+): (.*?)(?: -->|\"}|$)", file.read_text(), re.MULTILINE)
    assert expected is not None
    with pytest.raises(TopologyError) as caught:
        load(file)
    message = str(caught.value)
    assert re.match(rf"{re.escape(str(file))}:{expected[1]}: (?:{expected[2]})", message), message
    assert "\n" not in message
    assert len(message) < 500 + len(str(file))


def test_hostile_files(tmp_path: Path) -> None:
    for number, text in enumerate(
        (
            "version = 1\na = " + "[" * 50_000,
            "version = " + "1" * 10_000,
            "version = 1\n[[node]]\nname = '" + "a[0-9]" * 30 + "'\nkind = 'device'",
            "version = 1\nhostname = 1979-05-27",
            "version = 1\nnode = [1]",
            "version = 1\nnode = {}",
            "version = 1\ntemplate = 3",
            "version = 1\n[template]\nx = 3",
            "version = 1\n[template.x]\ny = 3",
            "version = true",
            "\x00",
            "",
        )
    ):
        file = tmp_path / f"{number}.toml"
        file.write_text(text)
        with pytest.raises(TopologyError) as caught:
            load(file)
        assert "\n" not in str(caught.value)
