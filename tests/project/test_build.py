"""What setup.py decides.

Catches: a wheel whose version does not say which torch it fits; objects of one torch linked for
another; a compiler that nobody tested; a CUDA architecture that is left out.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools
import torch
from torch.utils import cpp_extension

import dropout_ext

ROOT = Path(__file__).resolve().parents[2]
INFO = dropout_ext.build_info()

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="not a source tree")


class Setup:
    """setup.py against a torch, a compiler and a toolkit that need not exist, up to its call of
    `setup`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.patch = monkeypatch
        self.folder = folder
        self.torch("2.13.0+cpu", cuda=None)
        self.compiler("__GNUC__")
        for name in ("TORCH_CUDA_ARCH_LIST", "DROPOUT_EXT_WERROR", "FORCE_CUDA", "CUDA_HOME"):
            monkeypatch.setenv(name, "")  # restored, whatever setup.py sets

    def torch(self, version: str, cuda: str | None) -> None:
        self.patch.setattr(torch, "__version__", version)
        self.patch.setattr(torch.version, "cuda", cuda)

    def program(self, path: str, output: str) -> Path:
        program = self.folder / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\ncat << end\n{output}\nend\n")
        program.chmod(0o755)
        return program

    def compiler(self, *macros: str) -> None:
        defined = "\n".join(f"#define {name} 1" for name in macros)
        self.patch.setenv("CXX", f"{self.program('cxx', defined)} -wrapped")

    def toolkit(self, release: str, *archs: int) -> None:
        known = "\n".join(f"compute_{arch}" for arch in archs)
        self.program("cuda/bin/nvcc", f"Cuda compilation tools, release {release}\n{known}")
        (self.folder / "cuda/include").mkdir()
        (self.folder / "cuda/include/cuda_runtime_api.h").touch()
        self.patch.setattr(cpp_extension, "CUDA_HOME", str(self.folder / "cuda"))

    def run(self) -> dict[str, Any]:
        """The arguments of `setup`."""
        arguments: dict[str, Any] = {}
        self.patch.setattr(setuptools, "setup", arguments.update)
        runpy.run_path(str(ROOT / "setup.py"))
        return arguments

    def build_folders(self) -> tuple[str, str]:
        arguments = self.run()
        command = setuptools.Distribution(arguments).get_command_obj("build_ext")
        command.ensure_finalized()
        return command.build_temp, command.build_lib


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Setup:
    return Setup(monkeypatch, tmp_path)


def test_version_says_what_it_was_built_for() -> None:
    release, _, local = INFO["version"].partition("+")
    major, minor = INFO["torch"].split(".")[:2]
    kernels = "cpu" if INFO["cuda"] is None else "cu" + torch.version.cuda.replace(".", "")
    assert [part.isdigit() for part in release.split(".")] == [True] * 3
    assert local == f"torch{major}{minor}.{kernels}"


@pytest.mark.parametrize(
    ("version", "cuda", "local", "requirement"),
    [
        ("2.13.0+cpu", None, "torch213.cpu", "torch>=2.13,<2.14"),
        ("2.9.1", None, "torch29.cpu", "torch>=2.9,<2.10"),
        ("2.15.0a0+git12ab", None, "torch215.cpu", "torch>=2.15,<2.16"),
        ("2.13.0+cu130", "13.0", "torch213.cu130", "torch>=2.13,<2.14"),
        ("2.15.0+cu132", "13.2", "torch215.cu132", "torch>=2.15,<2.16"),
    ],
)
def test_version_and_requirement(
    setup: Setup, version: str, cuda: str | None, local: str, requirement: str
) -> None:
    setup.torch(version, cuda)
    setup.toolkit("13.0", 90)
    arguments = setup.run()
    assert arguments["version"].split("+")[1] == local
    assert arguments["install_requires"] == [requirement]


def test_cuda_torch_without_kernels_is_a_cpu_build(setup: Setup) -> None:
    setup.torch("2.13.0+cu130", "13.0")
    setup.toolkit("13.0", 90)
    setup.patch.setenv("FORCE_CUDA", "0")
    assert setup.run()["version"].endswith("+torch213.cpu")


def test_no_folder_is_shared(setup: Setup) -> None:
    setup.toolkit("13.0", 90)
    folders: set[str] = set()
    for version in ("2.13.0+cpu", "2.13.1+cpu", "2.14.0+cpu"):
        setup.torch(version, None)
        folders |= set(setup.build_folders())
    for forced in ("0", "1"):
        setup.torch("2.13.0+cu130", "13.0")
        setup.patch.setenv("FORCE_CUDA", forced)
        folders |= set(setup.build_folders())
    assert len(folders) == 10
    assert {Path(folder).parts[0] for folder in folders} == {"build"}


def test_gcc_and_clang(setup: Setup, capsys: pytest.CaptureFixture[str]) -> None:
    for macros, name, openmp in [
        (["__GNUC__"], "GCC", True),
        (["__GNUC__", "__clang__"], "clang", False),
    ]:
        setup.compiler(*macros)
        (extension,) = setup.run()["ext_modules"]
        flags = extension.extra_compile_args["cxx"]
        assert ("-fopenmp" in flags) is openmp
        assert "-ffp-contract=off" in flags
        assert f"compiling with {name} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "macros",
    [[], ["_MSC_VER"], ["__GNUC__", "__clang__", "__INTEL_LLVM_COMPILER"]],
    ids=["none", "other", "imitation"],
)
def test_another_compiler_is_refused(setup: Setup, macros: list[str]) -> None:
    setup.compiler(*macros)
    with pytest.raises(SystemExit, match=r"needs GCC or clang, .*cxx -wrapped"):
        setup.run()


def test_a_compiler_that_is_missing_is_refused(setup: Setup) -> None:
    setup.patch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="no-such-compiler"):
        setup.run()


@pytest.mark.parametrize(
    ("known", "archs"),
    [
        ([75, 80, 86, 90, 100, 103, 110, 120, 121], "7.5;8.0;9.0;10.0;11.0;12.0+PTX"),
        ([75, 80, 90, 100, 101, 120], "7.5;8.0;9.0;10.0;12.0+PTX"),
        ([80, 90], "8.0;9.0+PTX"),
    ],
)
def test_architectures_are_those_of_the_toolkit(setup: Setup, known: list[int], archs: str) -> None:
    setup.torch("2.13.0+cu130", "13.0")
    setup.toolkit("13.0", *known)
    (extension,) = setup.run()["ext_modules"]
    assert dict(extension.define_macros)["DROPOUT_EXT_CUDA_ARCHS"] == f'"{archs}"'
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == archs


def test_forced_cuda_without_a_toolkit_of_torch(setup: Setup) -> None:
    setup.patch.setenv("FORCE_CUDA", "1")
    with pytest.raises(SystemExit, match="without CUDA"):
        setup.run()
    setup.torch("2.13.0+cu130", "13.0")
    setup.patch.setattr(cpp_extension, "CUDA_HOME", None)
    with pytest.raises(SystemExit, match="no CUDA toolkit"):
        setup.run()
    setup.toolkit("12.8", 90)
    with pytest.raises(SystemExit, match=r"version 12, that of torch 13\.0"):
        setup.run()
