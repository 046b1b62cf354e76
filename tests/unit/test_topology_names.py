"""Names of vertices as files write them."""

from __future__ import annotations

import pytest

from pycomm.errors import TopologyError
from pycomm.topology.names import expand, fold, has_wildcard, matches


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("gpu0", ["gpu0"]),
        ("gpu[0-3]", ["gpu0", "gpu1", "gpu2", "gpu3"]),
        ("gpu[0,2,5-6]", ["gpu0", "gpu2", "gpu5", "gpu6"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("h[0-1]/g[0-1]", ["h0/g0", "h0/g1", "h1/g0", "h1/g1"]),
        ("a  b\nc", ["a", "b", "c"]),
        (r"a\ b c\[0\] d\*", ["a b", "c[0]", "d*"]),
        (r"back\\slash", [r"back\slash"]),
    ],
)
def test_expand(text: str, names: list[str]) -> None:
    assert expand(text) == names


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("gpu[3-0]", "backwards"),
        ("gpu[a]", "no range"),
        ("gpu[]", "no range"),
        ("gpu[0", "stray"),
        ("gpu]", "stray"),
        ("gpu*", r"cannot have a \*"),
        ("gpu\\", "stray"),
        ("gpu[0-999999999]", "more than"),
        ("a[0-9999][0-9999]", "more than"),
        ("gpu[0-999999999999999999999]", "no range"),
    ],
)
def test_expand_refuses(text: str, complaint: str) -> None:
    with pytest.raises(TopologyError, match=complaint) as caught:
        expand(text)
    assert "\n" not in str(caught.value)


def test_wildcards() -> None:
    names = ["host0/nic0", "host0/nic1", "host1/nic0", "leaf0", "leaf*"]
    assert matches("host*/nic0", names) == ["host0/nic0", "host1/nic0"]
    assert matches("host*/nic[0-1]", names) == names[:3]
    assert matches("*", names) == names
    assert matches(r"leaf\*", names) == ["leaf*"]
    assert has_wildcard("a*")
    assert not has_wildcard(r"a\*")
    with pytest.raises(TopologyError, match="stray"):
        matches("a*]", names)
    with pytest.raises(TopologyError, match="more than"):
        matches("a*[0-99999999]", names)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["g0", "g1", "g2"], ["g[0-2]"]),
        (["g0", "g2", "g3"], ["g0", "g[2-3]"]),
        (["h0/n1", "h1/n1", "h1/n2"], ["h[0-1]/n1", "h1/n2"]),
        (["h0/n0", "h1/n1"], ["h0/n0", "h1/n1"]),
        (["a07", "a08"], ["a07", "a08"]),
        (["a[0]", "b c"], [r"a\[0\]", r"b\ c"]),
        (["٣", "٤"], ["٣", "٤"]),
        (["sw", "sw"], ["sw", "sw"]),
        (["9" * 40], ["9" * 40]),
    ],
)
def test_fold(names: list[str], words: list[str]) -> None:
    assert fold(names) == words
    assert expand(" ".join(words)) == names
