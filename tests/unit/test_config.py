"""The table of settings: defaults, the environment, and errors that name the variable."""

from __future__ import annotations

from typing import get_args

import pytest

from pycomm import config
from pycomm.config import SETTINGS, setting, unknown_variables
from pycomm.errors import UsageError


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for row in SETTINGS.values():
        monkeypatch.delenv(row.variable, raising=False)


@pytest.mark.parametrize("name", SETTINGS)
def test_an_unset_or_empty_variable_means_the_default(name, monkeypatch):
    row = SETTINGS[name]
    assert setting(name) == row.default
    assert row.source() == "default"
    monkeypatch.setenv(row.variable, "  ")
    assert setting(name) == row.default
    assert row.source() == "default"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("timeout_s", "12.5", 12.5),
        ("timeout_s", "5 min", 300.0),
        ("shm", "off", False),
        ("flat", "YES", True),
        ("family", "6", 6),
        ("tcp_connections", "64", 64),
        ("store", "[::1]:29500", "[::1]:29500"),
        ("log", "info,planner=debug", "info,planner=debug"),
        ("algo", "allreduce:ring", "allreduce:ring"),
    ],
)
def test_the_environment_is_read_each_time(name, text, value, monkeypatch):
    monkeypatch.setenv(SETTINGS[name].variable, text)
    assert setting(name) == value
    assert SETTINGS[name].source() == "environment"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("timeout_s", "0"),
        ("timeout_s", "nan"),
        ("timeout_s", "inf"),
        ("timeout_s", "soon"),
        ("shm", "2"),
        ("family", "5"),
        ("family", "four"),
        ("tcp_connections", "0"),
        ("tcp_connections", "65"),
        ("store", "host"),
        ("store", "host:0"),
        ("store", ":29500"),
        ("store", "host:65536"),
        ("log", "loud"),
        ("log", "planner=loud"),
    ],
)
def test_a_bad_value_is_refused_by_name(name, text, monkeypatch):
    row = SETTINGS[name]
    monkeypatch.setenv(row.variable, text)
    with pytest.raises(UsageError) as caught:
        setting(name)
    assert row.variable in str(caught.value)
    assert row.expects in str(caught.value)
    assert text in str(caught.value)


def test_the_types_of_setting_cover_the_table():
    for names, kind in (
        (config._BoolName, bool),
        (config._IntName, int),
        (config._FloatName, float),
        (config._StrName, str),
    ):
        assert sorted(get_args(names)) == sorted(
            n for n, row in SETTINGS.items() if type(row.default) is kind
        )


def test_rows_are_sorted_and_described_in_one_line():
    assert list(SETTINGS) == sorted(SETTINGS)
    assert all(row.help and "\n" not in row.help and len(row.help) < 80 for row in SETTINGS.values())


def test_misspelt_variables_are_found():
    environ = {"PYCOMM_TIMEOUT": "1", "PYCOMM_SHM": "1", "PATH": ""}
    assert unknown_variables(environ) == ("PYCOMM_TIMEOUT",)
