"""The floors of the Python package: imports point down only; private names of torch have one home.

Catches: a function that needs a module, a module that needs a model; a private name of torch used
where no canary looks after it; a name that a new torch no longer has.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

PACKAGE = Path(__file__).resolve().parents[2] / "dropout_ext"
FLOORS = ("integration", "functional", "modules", "models")  # from the ground up
PRIVATE = "integration/torch_private.py"

pytestmark = pytest.mark.skipif(
    not (PACKAGE / PRIVATE).is_file(), reason="not a source checkout with floors"
)


def sources(folder: str = "") -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module or name that is imported, in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def attributes_of_torch(tree: ast.Module) -> Iterator[str]:
    """Every chain of attributes that begins at the name torch."""
    for node in ast.walk(tree):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if parts and isinstance(inner, ast.Name) and inner.id == "torch":
            yield ".".join(["torch", *reversed(parts)])


def is_private(name: str) -> bool:
    return any(p.startswith("_") and not p.endswith("__") for p in name.split("."))


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_down(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    assert len(sources(floor)) > 1
    for path in sources(floor):
        for name in imported(ast.parse(path.read_text())):
            package, _, rest = name.partition(".")
            if package == "dropout_ext":
                assert rest.split(".")[0] in (*FLOORS, "_C"), f"{path.name}: {name}"
                assert rest.split(".")[0] not in above, f"{path.name}: {name}"


def test_every_file_has_a_floor() -> None:
    """What stands beside the floors is what the package is and what it was built for."""
    beside = {path.name for path in PACKAGE.glob("*.py")}
    assert beside <= {"__init__.py", "_build.py", "_info.py", "_load.py"}


def test_private_names_of_torch_have_one_home() -> None:
    for path in sources():
        if path == PACKAGE / PRIVATE:
            continue
        tree = ast.parse(path.read_text())
        names = [n for n in imported(tree) if n.split(".")[0] == "torch"]
        names += attributes_of_torch(tree)
        assert not [name for name in names if is_private(name)], path.name


def purposes() -> dict[str, str]:
    if not (PACKAGE / PRIVATE).is_file():
        return {}
    found: dict[str, str] = importlib.import_module(
        "dropout_ext.integration.torch_private"
    ).PURPOSES
    return found


@pytest.mark.parametrize("name", [name for name in purposes() if name.startswith("torch.")])
def test_private_name_is_still_there(name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    found: object
    if owner == "torch.Tensor":  # a nested one
        rows = [torch.ones(3, 4), torch.ones(5, 4)]
        found = torch.nested.nested_tensor(rows, layout=torch.jagged)
    else:
        found = importlib.import_module(owner)
    assert hasattr(found, attribute), f"torch {torch.__version__} has no {name}"
