"""Builds the extension against the torch that is installed, with GCC or clang (CXX).

FORCE_CUDA=0|1 decides whether the CUDA kernels are built; unset: they are if torch has CUDA and a
toolkit is found. TORCH_CUDA_ARCH_LIST is respected. DROPOUT_EXT_WERROR=1: warnings are errors.
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

import torch
from setuptools import setup
from setuptools.command.build import build
from setuptools.command.sdist import sdist
from torch.utils import cpp_extension

ROOT = pathlib.Path(__file__).resolve().parent
NAME, VERSION = "dropout_ext._C", "0.2.0"
# From Turing on; minor revisions run the code of their major one.
CUDA_ARCHS = ["7.5", "8.0", "9.0", "10.0", "11.0", "12.0"]

TORCH_LAYER = (
    "autograd checks compiled_autograd cpu device draw_traced dropout_p eager gemm meta ops python"
)
ATTENTION = "autograd compiled_autograd composition cpu cpu_backward cpu_forward ops"
SOURCES = ["csrc/kernels/cpu/dispatch.cpp", "csrc/kernels/cpu/plan.cpp", "csrc/torch/attention.cpp"]
SOURCES += [f"csrc/torch/{name}.cpp" for name in TORCH_LAYER.split()]
SOURCES += [f"csrc/torch/attention_{name}.cpp" for name in ATTENTION.split()]
CPU_ONLY_SOURCES = ["csrc/torch/cuda_absent.cpp"]
CUDA_SOURCES = ["csrc/torch/cuda.cpp", "csrc/kernels/cuda/launch.cu"]

# The CPU kernels choose their instruction set at run time; -march would break other machines.
# No contraction: products are rounded once, as the mask contract has it.
CXX_FLAGS = ["-O3", "-std=c++20", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
NVCC_FLAGS = ["-O3", "-std=c++20", "--fmad=false", "-Xcompiler=-fvisibility=hidden"]


def printed(*command: str) -> str:
    """What a command prints; nothing if there is none of this name."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout + done.stderr


def openmp_flags() -> list[str]:
    """Of GCC or clang, whose rounding and vectors are tested. Clang: see csrc/torch/parallel.h."""
    cxx = cpp_extension.get_cxx_compiler()
    macros = set(printed(*shlex.split(cxx), "-dM", "-E", "-x", "c++", os.devnull).split())
    imitates = macros & {"__INTEL_COMPILER", "__INTEL_LLVM_COMPILER", "__NVCOMPILER"}
    if "__GNUC__" not in macros or imitates:
        raise SystemExit(f"dropout_ext needs GCC or clang, but the compiler (CXX) is {cxx!r}")
    clang = "__clang__" in macros
    print(f"dropout_ext: compiling with {'clang' if clang else 'GCC'} ({cxx})")
    return [] if clang else ["-fopenmp"]


def find_toolkit() -> str | None:
    """The folder of the CUDA toolkit, told to torch where it takes that of a wrapper for it."""
    if (home := cpp_extension.CUDA_HOME) is None:
        return None
    steps = printed(f"{home}/bin/nvcc", "--dryrun", "-x", "cu", os.devnull)
    top = re.search(r"^#\$ TOP=(.+)$", steps, re.MULTILINE)
    for folder in (home, top and os.path.realpath(top[1])):
        if folder and os.path.exists(os.path.join(folder, "include", "cuda_runtime_api.h")):
            cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"] = folder
            return folder
    return None


def missing_for_cuda() -> str | None:
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is a build without CUDA"
    toolkit = find_toolkit()
    release = toolkit and re.search(r"release (\d+)", printed(f"{toolkit}/bin/nvcc", "--version"))
    if not release:
        return "no CUDA toolkit was found (CUDA_HOME)"
    if release[1] != torch.version.cuda.split(".")[0]:
        return f"the CUDA toolkit is of version {release[1]}, that of torch {torch.version.cuda}"
    return None


def build_with_cuda() -> bool:
    forced = os.environ.get("FORCE_CUDA", "")
    if forced not in ("", "0", "1"):
        raise SystemExit(f"FORCE_CUDA must be 0 or 1, but got {forced!r}")
    missing = "FORCE_CUDA=0" if forced == "0" else missing_for_cuda()
    if missing and forced == "1":
        raise SystemExit(f"FORCE_CUDA=1, but {missing}")
    print(f"dropout_ext: building {f'without CUDA: {missing}' if missing else 'with CUDA'}")
    return not missing


def default_cuda_archs() -> str:
    """Those that the toolkit knows, and PTX of the newest for those to come."""
    virtual = set(printed(f"{cpp_extension.CUDA_HOME}/bin/nvcc", "--list-gpu-arch").split())
    archs = [arch for arch in CUDA_ARCHS if f"compute_{arch.replace('.', '')}" in virtual]
    return ";".join(archs) + "+PTX"


def extension(with_cuda: bool) -> cpp_extension.CppExtension:
    cxx_flags = CXX_FLAGS + openmp_flags()
    nvcc_flags = list(NVCC_FLAGS)
    if os.environ.get("DROPOUT_EXT_WERROR") == "1":
        # The headers of torch have unused parameters.
        strict = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
        cxx_flags += strict
        nvcc_flags += ["-Werror=all-warnings", "-Xcompiler=" + ",".join(strict)]
    options = {
        "include_dirs": [str(ROOT / "csrc")],
        "extra_compile_args": {"cxx": cxx_flags, "nvcc": nvcc_flags},
    }
    if not with_cuda:
        return cpp_extension.CppExtension(NAME, SOURCES + CPU_ONLY_SOURCES, **options)
    archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or default_cuda_archs()
    os.environ["TORCH_CUDA_ARCH_LIST"] = archs
    print(f"dropout_ext: CUDA architectures {archs}")
    macros = {"DROPOUT_EXT_CUDA": None, "DROPOUT_EXT_CUDA_ARCHS": f'"{archs}"'}
    options["define_macros"] = list(macros.items())
    return cpp_extension.CUDAExtension(NAME, SOURCES + CUDA_SOURCES, **options)


WITH_CUDA = build_with_cuda()
MAJOR, MINOR = (int(part) for part in torch.__version__.split(".")[:2])
KERNELS = "cu" + torch.version.cuda.replace(".", "") if WITH_CUDA else "cpu"
WHEEL_VERSION = f"{VERSION}+torch{MAJOR}{MINOR}.{KERNELS}"  # PEP 440: a local version


class Build(build):
    """Builds each torch's extension in a folder of its own: no object is linked to another's."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.build_base = os.path.join(self.build_base, f"torch-{torch.__version__}-{KERNELS}")

    def run(self) -> None:
        shutil.rmtree(self.build_platlib, ignore_errors=True)  # modules that are no longer there
        super().run()


class BuildExtension(cpp_extension.BuildExtension):
    """Also writes down what the extension was built for, to be checked before it is loaded."""

    def run(self) -> None:
        self.force = True  # what is newer than its sources may be another torch's
        super().run()
        in_source = self.inplace or getattr(self, "editable_mode", False)
        package = ROOT if in_source else pathlib.Path(self.build_lib)
        (package / "dropout_ext" / "_build.py").write_text(
            f'"""Written by setup.py."""\n\nVERSION = "{WHEEL_VERSION}"\n'
            f'TORCH_VERSION = "{torch.__version__}"\n'
        )


class SourceDistribution(sdist):
    """Has the plain version: it was not built for any torch yet."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.distribution.metadata.version = VERSION


setup(
    version=WHEEL_VERSION,
    license="BSD-3-Clause",  # here, as setuptools before 77 cannot read it in pyproject.toml
    ext_modules=[extension(WITH_CUDA)],
    cmdclass={"build": Build, "build_ext": BuildExtension, "sdist": SourceDistribution},
    # Extensions are compatible within a minor version of torch.
    install_requires=[f"torch>={MAJOR}.{MINOR},<{MAJOR}.{MINOR + 1}"],
)
