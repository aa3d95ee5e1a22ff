"""Builds the extension against the torch that is installed.

FORCE_CUDA=0|1 decides whether the CUDA kernels are built; unset: they are if torch has CUDA and a
toolkit is found. TORCH_CUDA_ARCH_LIST is respected. DROPOUT_EXT_WERROR=1 turns warnings into
errors.
"""

import os
import pathlib
import re
import subprocess

import torch
from setuptools import setup
from torch.utils import cpp_extension

ROOT = pathlib.Path(__file__).resolve().parent
VERSION = "0.1.0"
# From Turing on; minor revisions run the code of their major one.
CUDA_ARCHS = ["7.5", "8.0", "9.0", "10.0", "11.0", "12.0"]

SOURCES = [
    "csrc/kernels/cpu/dispatch.cpp",
    "csrc/kernels/cpu/plan.cpp",
    "csrc/torch/autograd.cpp",
    "csrc/torch/checks.cpp",
    "csrc/torch/compiled_autograd.cpp",
    "csrc/torch/cpu.cpp",
    "csrc/torch/device.cpp",
    "csrc/torch/draw_traced.cpp",
    "csrc/torch/eager.cpp",
    "csrc/torch/meta.cpp",
    "csrc/torch/ops.cpp",
    "csrc/torch/python.cpp",
]
CPU_ONLY_SOURCES = ["csrc/torch/cuda_absent.cpp"]
CUDA_SOURCES = ["csrc/torch/cuda.cpp", "csrc/kernels/cuda/launch.cu"]

# The CPU kernels choose their instruction set at run time; -march would break other machines.
# No contraction: products are rounded once, as the mask contract has it.
CXX_FLAGS = ["-O3", "-std=c++20", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
NVCC_FLAGS = ["-O3", "-std=c++20", "--fmad=false", "-Xcompiler=-fvisibility=hidden"]


def nvcc(home: str, *options: str) -> str:
    """What the compiler of this toolkit prints; nothing if there is none."""
    command = [pathlib.Path(home) / "bin" / "nvcc", *options]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return printed.stdout + printed.stderr


def find_toolkit() -> str | None:
    """The folder of the CUDA toolkit, told to torch where it takes that of a wrapper for it."""
    home = cpp_extension.CUDA_HOME
    if home is None:
        return None
    top = re.search(r"^#\$ TOP=(.+)$", nvcc(home, "--dryrun", "-x", "cu", os.devnull), re.MULTILINE)
    for folder in (home, top and os.path.realpath(top[1])):
        if folder and os.path.exists(os.path.join(folder, "include", "cuda_runtime_api.h")):
            cpp_extension.CUDA_HOME = os.environ["CUDA_HOME"] = folder
            return folder
    return None


def build_with_cuda() -> bool:
    forced = os.environ.get("FORCE_CUDA")
    if forced not in (None, "", "0", "1"):
        raise SystemExit(f"FORCE_CUDA must be 0 or 1, but got {forced!r}")
    if forced == "0":
        print("dropout_ext: building without CUDA (FORCE_CUDA=0)")
        return False
    missing = []
    if torch.version.cuda is None:
        missing.append(f"torch {torch.__version__} is a build without CUDA")
    else:
        toolkit = find_toolkit()
        release = toolkit and re.search(r"release (\d+)", nvcc(toolkit, "--version"))
        if not release:
            missing.append("no CUDA toolkit was found (CUDA_HOME)")
        elif release[1] != torch.version.cuda.split(".")[0]:
            missing.append(
                f"the CUDA toolkit that was found is of version {release[1]}, but torch "
                f"{torch.__version__} of {torch.version.cuda}"
            )
    if missing and forced == "1":
        raise SystemExit("FORCE_CUDA=1, but " + " and ".join(missing))
    print(f"dropout_ext: building {'without' if missing else 'with'} CUDA {missing or ''}")
    return not missing


def default_cuda_archs() -> str:
    """Those that the toolkit knows, and PTX of the newest for those to come."""
    virtual = set(nvcc(cpp_extension.CUDA_HOME, "--list-gpu-arch").split())
    archs = [arch for arch in CUDA_ARCHS if f"compute_{arch.replace('.', '')}" in virtual]
    return ";".join(archs) + "+PTX"


def extension() -> cpp_extension.CppExtension:
    cxx_flags = list(CXX_FLAGS)
    nvcc_flags = list(NVCC_FLAGS)
    if os.environ.get("DROPOUT_EXT_WERROR") == "1":
        # The headers of torch have unused parameters.
        cxx_flags += ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]
        nvcc_flags += [
            "-Werror=all-warnings",
            "-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-Werror",
        ]
    with_cuda = build_with_cuda()
    options = {
        "name": "dropout_ext._C",
        "include_dirs": [str(ROOT / "csrc")],
        "extra_compile_args": {"cxx": cxx_flags, "nvcc": nvcc_flags},
    }
    if not with_cuda:
        return cpp_extension.CppExtension(sources=SOURCES + CPU_ONLY_SOURCES, **options)
    archs = os.environ.get("TORCH_CUDA_ARCH_LIST") or default_cuda_archs()
    os.environ["TORCH_CUDA_ARCH_LIST"] = archs
    print(f"dropout_ext: CUDA architectures {archs}")
    options["define_macros"] = [
        ("DROPOUT_EXT_CUDA", None),
        ("DROPOUT_EXT_CUDA_ARCHS", f'"{archs}"'),
    ]
    return cpp_extension.CUDAExtension(sources=SOURCES + CUDA_SOURCES, **options)


class BuildExtension(cpp_extension.BuildExtension):
    """Also writes down what the extension was built for, to be checked before it is loaded."""

    def run(self) -> None:
        super().run()
        in_source = self.inplace or getattr(self, "editable_mode", False)
        package = ROOT if in_source else pathlib.Path(self.build_lib)
        (package / "dropout_ext" / "_build.py").write_text(
            f'"""Written by setup.py."""\n\nVERSION = "{VERSION}"\n'
            f'TORCH_VERSION = "{torch.__version__}"\n'
        )


def torch_requirement() -> str:
    """Extensions are compatible within a minor version of torch."""
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    return f"torch>={major}.{minor},<{major}.{minor + 1}"


setup(
    version=VERSION,
    license="BSD-3-Clause",  # here, as setuptools before 77 cannot read it in pyproject.toml
    ext_modules=[extension()],
    cmdclass={"build_ext": BuildExtension},
    install_requires=[torch_requirement()],
)
