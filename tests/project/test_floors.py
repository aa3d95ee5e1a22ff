"""The floors of the Python package: imports point down only, lists of arguments stand once.

Catches: a function that reaches up to a module or a model, also by an import inside a function; a
pickle that names a file which may move; the arguments of a mask spelled out once more.
"""

from __future__ import annotations

import ast
import pickle
import pickletools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import dropout_ext
from dropout_ext import functional, modules

PACKAGE = Path(dropout_ext.__file__).parent
FLOORS = ("integration", "functional", "modules", "models")  # from the bottom
BELOW = {"_C", "_build"}  # what every floor may use


def imported(path: Path) -> Iterator[str]:
    """Modules of this package that a file imports, anywhere in it, as dotted names below it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or "")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            inside = (node.module or "").split(".")[1:]
            for alias in node.names:
                yield ".".join([*inside, alias.name])
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE.name:
                    yield ".".join(alias.name.split(".")[1:])


def violations(package: Path) -> list[str]:
    """Imports that point up, into no floor at all, or are relative."""
    found = []
    for level, floor in enumerate(FLOORS):
        for path in sorted((package / floor).rglob("*.py")):
            for name in imported(path):
                if name.split(".")[0] not in {*FLOORS[: level + 1], *BELOW}:
                    found.append(f"{path.relative_to(package)} imports {name or PACKAGE.name}")
    return found


def test_imports_point_down() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize("floor", FLOORS)
def test_every_floor_is_there(floor: str) -> None:
    assert len(list((PACKAGE / floor).glob("*.py"))) > 1


UPWARD = {
    "to the floor above": ("functional/apply.py", "from dropout_ext.modules import Dropout"),
    "inside a function": (
        "modules/attention.py",
        "def late() -> None:\n    from dropout_ext.models.redirect import redirect_torch_dropout",
    ),
    "of the package": ("integration/vmap.py", "import dropout_ext"),
    "of a floor from the package": ("functional/mask.py", "from dropout_ext import models"),
    "of a public name": ("functional/checks.py", "from dropout_ext import Dropout"),
    "relative": ("integration/dtensor.py", "from ..functional import dropout"),
}


@pytest.mark.parametrize("name", UPWARD)
def test_an_import_that_points_up_is_found(name: str, tmp_path: Path) -> None:
    path, line = UPWARD[name]
    package = tmp_path / "package"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    with (package / path).open("a") as file:
        file.write(f"\n\n{line}\n")
    found = violations(package)
    assert len(found) == 1 and found[0].startswith(path), found


def test_nothing_stands_beside_the_floors() -> None:
    """At the top there is the public surface, and what concerns the build."""
    beside = {path.name for path in PACKAGE.glob("*.py")}
    assert beside == {"__init__.py", "_build.py", "_info.py", "_load.py"}


# Lists of arguments.

ARGUMENTS = {"mask_strides", "mask_base", "scale", "shift", "fill"}


def spelled_out(text: str) -> int:
    """Signatures and calls that name all the arguments of a mask and its rule."""
    count = 0
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count += {argument.arg for argument in arguments} >= ARGUMENTS
        elif isinstance(node, ast.Call):
            count += {keyword.arg for keyword in node.keywords} >= ARGUMENTS
    return count


def test_the_arguments_of_a_mask_are_spelled_out_once() -> None:
    """In the stub of the binary; elsewhere they travel as a Mask and a Source."""
    files = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.pyi")]
    found = {path.name: n for path in files if (n := spelled_out(path.read_text()))}
    assert found == {"_C.pyi": 1}


# Public names.

PUBLIC = [
    *((dropout_ext, name) for name in dropout_ext.__all__ if name != "functional"),
    *((functional, name) for name in functional.__all__),
    *((modules, name) for name in modules.__all__),
]


@pytest.mark.parametrize(("home", "name"), PUBLIC, ids=[f"{h.__name__}.{n}" for h, n in PUBLIC])
def test_a_public_name_says_where_it_is_public(home: Any, name: str) -> None:
    thing = getattr(home, name)
    assert thing.__module__ in (home.__name__, dropout_ext.__name__)
    assert thing.__name__ == name
    assert pickle.loads(pickle.dumps(thing)) is thing


def pickled() -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.3))
    report = dropout_ext.ConversionReport()
    return {
        "Dropout": dropout_ext.Dropout(0.3, broadcast_dims=0, generator=generator),
        "DropPath": dropout_ext.DropPath(0.1),
        "StochasticDepth": dropout_ext.StochasticDepth(0.1, "row"),
        "AlphaDropout": dropout_ext.AlphaDropout(0.1),
        "Dropout2d": dropout_ext.Dropout2d(0.1),
        "MultiheadAttention": dropout_ext.MultiheadAttention(4, 2, dropout=0.1),
        "converted model": dropout_ext.convert_dropout(model, report=report),
        "report": report,
        "prediction": dropout_ext.Prediction(torch.ones(2), torch.zeros(2)),
        "function": functional.dropout,
    }


@pytest.mark.parametrize("name", pickled())
def test_pickles_name_public_places_only(name: str) -> None:
    """Whatever moves below them, they load."""
    thing = pickled()[name]
    data = pickle.dumps(thing)
    strings = [str(arg) for _, arg, _ in pickletools.genops(data) if isinstance(arg, str)]
    homes = {string.split(" ")[0] for string in strings if string.startswith("dropout_ext")}
    assert homes and homes <= {"dropout_ext", "dropout_ext.functional", "dropout_ext.modules"}
    assert type(pickle.loads(data)) is type(thing)


def test_a_pickle_of_the_public_place_loads() -> None:
    """Bytes as another version of this package would have written them."""
    data = b"\x80\x04cdropout_ext\nDropout\n)\x81}(X\x01\x00\x00\x00pG?\xd3333333ub."
    module = pickle.loads(data)
    assert type(module) is dropout_ext.Dropout and module.p == 0.3


@pytest.mark.parametrize(
    "name", ["MultiheadAttention", "DropoutModule", "DropConnect", "ConversionReport", "Prediction"]
)
def test_what_others_name_is_public(name: str) -> None:
    assert name in dropout_ext.__all__
