"""The names of torch that it does not promise to keep: all in two files, and all still there.

Those of Inductor stand apart, since importing them is slow.

Catches: a release of torch without one of them, named here before anything fails strangely; a file
that reaches for a private name by itself.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

# The package is not imported: these tests say what is gone when its import fails for that.
PACKAGE = Path(__file__).resolve().parents[2] / "dropout_ext"
HOMES = [PACKAGE / "integration" / f"{name}_private.py" for name in ("torch", "inductor")]

pytestmark = pytest.mark.skipif(not HOMES[0].is_file(), reason="not a source checkout")


def purposes(home: Path) -> dict[str, str]:
    for node in ast.parse(home.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PURPOSES":
            return dict(ast.literal_eval(node.value))
    raise AssertionError(f"{home} has no PURPOSES")


PURPOSES_OF = {home: purposes(home) for home in HOMES if home.is_file()}
PURPOSES = {name: text for each in PURPOSES_OF.values() for name, text in each.items()}


def resolve(path: str) -> Any:
    """The object of this dotted name; the longest part that is a module is imported."""
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:count]))
        except ImportError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise AttributeError(path)


def marked() -> Any:
    return torch.compiler.assume_constant_result(lambda: 0)


def jagged() -> Any:
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)


def operator() -> Any:
    return torch.ops.aten.add.Tensor


def traced_variable() -> Any:
    return importlib.import_module("torch._dynamo.comptime").ComptimeVar


# What has the attribute, if no module.
INSTANCES = {
    "function": marked,
    "torch.Tensor": jagged,
    "operator": operator,
    "ComptimeVar": traced_variable,
}


@pytest.mark.parametrize("name", PURPOSES)
def test_the_name_is_there(name: str) -> None:
    owner, _, attribute = name.rpartition(".")
    try:
        if owner in INSTANCES:
            getattr(INSTANCES[owner](), attribute)
        else:
            resolve(name)
    except AttributeError:
        pytest.fail(f"torch {torch.__version__} has no {name} any more. {PURPOSES[name]}")


def test_a_name_that_is_gone_is_noticed() -> None:
    for name in ("torch._C._gone", "torch.utils.checkpoint._gone", "torch._gone.at_all"):
        with pytest.raises(AttributeError):
            resolve(name)


# Who uses them.

# Strings that look like attributes: a key of metadata, and the end of a name in torch 2.15.
NO_ATTRIBUTES = {"_region_activation_memory_budget", "_impl"}
# Undocumented, though without an underscore.
UNDOCUMENTED = ("torch.fx.experimental", "torch.fx.traceback")
OWN = {"_C", "_build", "_load", "_info"}
PUBLIC_OF_NAMEDTUPLE = {"_asdict", "_replace", "_fields"}


def is_private(path: str) -> bool:
    return any(re.match(r"_(?!_)", part) for part in path.split(".")) or path.startswith(
        UNDOCUMENTED
    )


def private_imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "dropout_ext":
                name = ".".join(part for part in name.split(".") if part not in OWN)
            if is_private(name) or name == "torch.utils.checkpoint.SAC_IGNORED_OPS":
                yield name


def defined(tree: ast.Module) -> set[str]:
    """Attributes that this package itself sets: self._x = ..., owner._x = ..., methods."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return names


def private_attributes(tree: ast.Module, own: set[str]) -> Iterator[str]:
    """Attributes, and strings that could name one to getattr."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if re.match(r"_(?!_)", node.attr) and node.attr not in own:
                yield node.attr
        elif isinstance(node, ast.Constant):
            word = str(node.value)
            if re.fullmatch(r"_[a-z]\w*", word) and word not in own:
                yield word


def touched(text: str) -> list[str]:
    tree = ast.parse(text)
    own = {name for name in defined(tree) if name not in TORCHS}
    return [*private_imports(tree), *private_attributes(tree, own | OWN | PUBLIC_OF_NAMEDTUPLE)]


TORCHS = {name.rpartition(".")[2] for name in PURPOSES}


def test_no_other_file_touches_one() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in sorted(PACKAGE.rglob("*.py"))
        if path not in HOMES and (names := touched(path.read_text()))
    }
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "from torch._C import DispatchKey",
        "import torch._dynamo",
        "from torch.nn.modules.dropout import _DropoutNd",
        "from torch.fx.traceback import get_current_meta",
        "from torch.utils.checkpoint import SAC_IGNORED_OPS",
        "from torch._inductor.ir import Pointwise",
        "x = torch._C._autograd",
        "x = tensor._ragged_idx",
        "x = getattr(tensor, '_ragged_idx')",
        "f._dynamo_marked_constant = True",
        "x = F._canonical_mask(mask)",
    ],
)
def test_a_private_name_is_noticed(line: str) -> None:
    assert touched(line)


@pytest.mark.parametrize("home", HOMES, ids=lambda home: home.stem)
def test_every_private_name_has_its_purpose(home: Path) -> None:
    """What the file touches is what its table lists."""
    text, listed_here = home.read_text(), PURPOSES_OF[home]
    tree = ast.parse(text)
    imports = set(private_imports(tree))
    listed = {name for name in listed_here if name.rpartition(".")[0] not in INSTANCES}
    assert imports == listed
    attributes = {name for name in private_attributes(tree, set()) if f"import {name}" not in text}
    instance = {name.rpartition(".")[2] for name in listed_here} - {
        name.rpartition(".")[2] for name in listed
    }
    assert attributes - NO_ATTRIBUTES == instance


def test_importing_the_package_imports_nothing_slow() -> None:
    code = (
        "import sys, torch; slow = {'sympy', 'torch._inductor'} - set(sys.modules); "
        "import dropout_ext; print(slow.isdisjoint(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.stdout.split() == ["True"], done.stderr
