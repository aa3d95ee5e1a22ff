"""What the installed package says of itself, and that it refuses the wrong torch in plain words.

Catches: an undefined symbol instead of an error that can be acted on; a stub file that has drifted
from the module; a SIMD path that exists and that no test runs.
"""

from __future__ import annotations

import ast
import importlib.resources
import inspect
import platform
import pydoc
import re
import subprocess
import sys
from typing import Any

import pytest
import torch

import dropout_ext
from dropout_ext import _C, _build, _check
from tests.helpers.requirements import KNOWN_PATHS

INFO = dropout_ext.build_info()


def test_build_info() -> None:
    assert set(INFO) == {"version", "torch", "cuda", "cuda_archs", "cpu_paths", "cpu_path"}
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", INFO["version"])
    assert INFO["version"] == dropout_ext.__version__
    assert INFO["torch"].split(".")[:2] == torch.__version__.split(".")[:2]
    assert (INFO["cuda"] is None) == (INFO["cuda_archs"] is None)
    assert INFO["cpu_path"] in INFO["cpu_paths"]


def test_build_info_with_cuda() -> None:
    if INFO["cuda"] is None:
        pytest.skip("dropout_ext was built without CUDA")
    assert re.fullmatch(r"\d+\.\d+", INFO["cuda"])
    assert INFO["cuda_archs"]


def test_every_path_is_tested() -> None:
    assert INFO["cpu_paths"][0] == "scalar"
    assert set(INFO["cpu_paths"]) <= set(KNOWN_PATHS)


@pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc/cpuinfo")
def test_paths_are_what_the_processor_can_do() -> None:
    with open("/proc/cpuinfo") as file:
        flags = set(file.read().split())
    for path, needed in [("avx2", {"avx2"}), ("avx512", {"avx512f", "avx512dq", "avx512bw"})]:
        if not needed <= flags:
            assert path not in INFO["cpu_paths"]
        elif path == "avx2":
            assert path in INFO["cpu_paths"]


def test_build_info_is_a_copy() -> None:
    dropout_ext.build_info().clear()
    assert dropout_ext.build_info() == INFO


# The torch it was built for.


def test_built_for_this_torch() -> None:
    _check.check_torch_version(_build.TORCH_VERSION, torch.__version__)


@pytest.mark.parametrize(
    ("built_for", "running"),
    [("2.13.0", "2.13.0"), ("2.13.0", "2.13.1+cu130"), ("2.13.0+cpu", "2.13.0a0+git1234")],
)
def test_same_minor_version_is_accepted(built_for: str, running: str) -> None:
    _check.check_torch_version(built_for, running)


@pytest.mark.parametrize(
    ("built_for", "running"),
    [
        ("2.13.0", "2.12.0"),
        ("2.13.0+cpu", "2.14.0+cu130"),
        ("2.1.0", "2.13.0"),
        ("2.13.0", "3.13.0"),
    ],
)
def test_other_version_is_an_import_error(built_for: str, running: str) -> None:
    with pytest.raises(ImportError) as error:
        _check.check_torch_version(built_for, running)
    message = str(error.value)
    assert built_for in message
    assert running in message
    assert "pip install" in message
    assert "--no-build-isolation" in message


@pytest.mark.thorough
def test_check_comes_before_the_binary() -> None:
    """With another torch the error is ours, not the loader's."""
    code = (
        "import torch; torch.__version__ = torch.version.__version__ = '2.0.1'\n"
        "try: import dropout_ext\n"
        "except ImportError as error: print(error)\n"
        "import sys; print('dropout_ext._C' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2.0.1" in done.stdout
    assert "pip install" in done.stdout
    assert done.stdout.split()[-1] == "False"


# Types.


def test_is_typed() -> None:
    files = importlib.resources.files(dropout_ext)
    assert (files / "py.typed").is_file()
    assert (files / "_C.pyi").is_file()


def stub() -> ast.Module:
    return ast.parse((importlib.resources.files(dropout_ext) / "_C.pyi").read_text())


def test_stub_names_what_the_module_has() -> None:
    declared = {
        node.name for node in stub().body if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    declared |= {
        node.target.id
        for node in stub().body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert declared == {name for name in dir(_C) if not name.startswith("__")}


def test_stub_has_the_arguments_of_the_module() -> None:
    """pybind11 writes each signature on the first line of the docstring."""
    for node in stub().body:
        if not isinstance(node, ast.FunctionDef):
            continue
        arguments = [
            a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        ]
        line = (getattr(_C, node.name).__doc__ or "").splitlines()[0]
        assert line.startswith(f"{node.name}("), line
        inside = line[len(node.name) + 1 : line.rindex(") ->")]
        found = re.findall(r"(?:^|, )\*?(\w+): ", inside)
        assert [name.rstrip("_") for name in found] == [name.rstrip("_") for name in arguments]


# Names and documentation.


PUBLIC = [
    (module, name)
    for module in (dropout_ext, dropout_ext.functional, dropout_ext.modules)
    for name in module.__all__
]


def test_public_names_are_listed_once() -> None:
    for module in (dropout_ext, dropout_ext.functional, dropout_ext.modules):
        assert len(module.__all__) == len(set(module.__all__))
    assert len(PUBLIC) > 30


@pytest.mark.parametrize(
    ("module", "name"), PUBLIC, ids=lambda part: getattr(part, "__name__", part)
)
def test_public_things_are_documented(module: Any, name: str) -> None:
    """A docstring of its own that explains every argument; help() shows it and the signature."""
    thing = getattr(module, name)
    own = inspect.cleandoc(thing.__doc__ or "")
    assert len(own) > 60
    text = pydoc.plain(pydoc.render_doc(thing))
    assert own.splitlines()[0] in text
    if inspect.ismodule(thing):
        return
    for argument in inspect.signature(thing).parameters.values():
        assert argument.annotation is not argument.empty, f"{argument.name} has no type"
        assert f"{argument.name}: " in text
        assert re.search(rf"\b{argument.name}\b", own), f"{argument.name} is not explained"


@pytest.mark.thorough
def test_import_is_quiet_and_starts_no_threads() -> None:
    code = (
        "import threading, torch\n"
        "state, threads = torch.get_rng_state(), torch.get_num_threads()\n"
        "import dropout_ext\n"
        "assert torch.equal(torch.get_rng_state(), state)\n"
        "assert torch.get_num_threads() == threads and threading.active_count() == 1\n"
        "assert not torch.cuda.is_initialized()"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
