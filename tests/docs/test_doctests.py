"""Examples in docstrings do what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import pycomm

# Modules that need an optional package or the command line's process; they carry no examples.
SKIPPED = (
    "pycomm.backends.gloo",
    "pycomm.backends.mpi",
    "pycomm.bench",
    "pycomm.cli",
    "pycomm.torch",
    "pycomm._native",
)
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(pycomm.__path__, "pycomm.")
    if not module.name.startswith(SKIPPED)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    outcome = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert outcome.failed == 0, f"{outcome.failed} of {outcome.attempted} examples in {name} failed"


def test_there_are_examples():
    assert {"pycomm.units", "pycomm.config", "pycomm.events"} <= set(MODULES)
