"""The hand-written types of the compiled core name exactly what the core has."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pycomm
from pycomm.core import native

STUB = ast.parse((Path(pycomm.__file__).parent / "_native.pyi").read_text())


def public(names: object) -> set[str]:
    return {name for name in vars(names) if not name.startswith("_")}


def stubbed(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    """Names that a module or class of the stub defines; its private aliases are its own affair."""
    found: dict[str, ast.stmt] = {}
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            found[statement.target.id] = statement
    return found


def parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args]


def documented(doc: str) -> list[str]:
    """Parameter names in the signature that pybind11 writes into the first line of a docstring."""
    return re.findall(r"(?:\(|, )(\w+)(?=: |\)|,)", doc.splitlines()[0].rsplit(" -> ", 1)[0])


def test_the_stub_names_what_the_module_has() -> None:
    assert set(stubbed(STUB.body)) == public(native)


def test_classes_have_the_members_that_the_stub_names() -> None:
    classes = [s for s in STUB.body if isinstance(s, ast.ClassDef)]
    assert {"Context", "Group", "Plan", "StoreClient", "StoreServer", "Work"} == {c.name for c in classes}
    for one in classes:
        members = set(stubbed(one.body)) - {"__init__"}
        assert members == public(getattr(native, one.name)), one.name


def test_parameters_have_the_names_and_order_of_the_module() -> None:
    compared = 0
    for name, statement in stubbed(STUB.body).items():
        functions = [(statement, getattr(native, name))] if isinstance(statement, ast.FunctionDef) else []
        if isinstance(statement, ast.ClassDef):
            for member, function in stubbed(statement.body).items():
                real = getattr(getattr(native, name), member)
                if isinstance(function, ast.FunctionDef) and not isinstance(real, property):
                    functions.append((function, real))
        for function, real in functions:
            ours, theirs = parameters(function), documented(real.__doc__)
            assert ours == theirs, f"{name}.{function.name}: the stub has {ours}, the core {theirs}"
            compared += 1
    assert compared > 20
