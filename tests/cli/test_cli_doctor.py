"""pycomm doctor: facts are complete and true, problems are found and say what to do."""

from __future__ import annotations

import json
import os
import resource

import pytest

from pycomm import cli
from pycomm.backends.registry import backend_names
from pycomm.cli import doctor
from pycomm.config import SETTINGS


@pytest.fixture
def facts(monkeypatch):
    for row in SETTINGS.values():
        monkeypatch.delenv(row.variable, raising=False)
    return doctor.examine


def test_facts_are_complete(facts):
    found = facts()
    assert {backend["name"] for backend in found["backends"]} == set(backend_names())
    assert all(backend["works"] == (backend["reason"] is None) for backend in found["backends"])
    assert found["machine"]["cores"] == os.cpu_count()
    assert found["limits"][0]["soft"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert any("127.0.0.1" in interface["addresses"] for interface in found["interfaces"])
    assert [row["variable"] for row in found["settings"]] == [row.variable for row in SETTINGS.values()]
    assert found["versions"]["numpy"]


def test_the_secret_is_never_shown(facts, monkeypatch):
    monkeypatch.setenv("PYCOMM_SECRET", "hush-hush")
    found = facts()
    assert "hush-hush" not in repr(found)
    assert {row["variable"]: row["value"] for row in found["settings"]}["PYCOMM_SECRET"] == "(set)"


def test_wrong_and_misspelt_settings_are_problems(facts, monkeypatch):
    monkeypatch.setenv("PYCOMM_TIMEOUT_S", "soon")
    monkeypatch.setenv("PYCOMM_TIMEOUT", "5")
    problems = "\n".join(facts()["problems"])
    assert "PYCOMM_TIMEOUT_S: 'soon' will not do" in problems
    assert "PYCOMM_TIMEOUT is no setting of pycomm" in problems


def test_few_files_and_a_broken_backend_are_problems(facts, monkeypatch):
    def broken(name: str, *, usable: bool) -> None:
        raise ImportError(f"{name} {usable}: no such library")

    monkeypatch.setattr(doctor, "get_backend", broken)
    monkeypatch.setattr(doctor.resource, "getrlimit", lambda _: (64, 64))
    found = facts()
    assert any("only 64 open files" in problem for problem in found["problems"])
    assert any("native backend does not work" in problem for problem in found["problems"])
    assert all("no such library" in backend["reason"] for backend in found["backends"])


def test_a_core_older_than_its_sources_is_stale(facts, monkeypatch, tmp_path):
    newer = tmp_path / "later.cc"
    newer.write_text("")
    os.utime(newer, (2**33, 2**33))
    monkeypatch.setattr(doctor, "_newest_source", lambda: newer)
    found = facts()
    assert found["core"]["is_stale"]
    assert any("older than later.cc" in problem and "pip install" in problem for problem in found["problems"])


@pytest.mark.parametrize("problems", [[], ["something is wrong"]])
def test_exit_code_json_and_table_agree(problems, facts, monkeypatch, capsys):
    found = {**facts(), "problems": problems}
    monkeypatch.setattr(doctor, "examine", lambda: found)
    for arguments in (["doctor"], ["doctor", "--json"]):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == len(problems)
        out = capsys.readouterr().out
        if "--json" in arguments:
            assert json.loads(out)["problems"] == problems
        else:
            assert ("no problems found" in out) != bool(problems)
            assert all(f"problem: {problem}" in out for problem in problems)
            assert "\x1b" not in out
