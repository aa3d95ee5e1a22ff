"""Runs a command under the mock CUDA runtime, whose devices are this machine's memory.

    python tests/cuda/mock_runtime/run.py [--out FOLDER] python -m pytest tests/cuda

It runs the part of the CUDA code that lives on the host: the generator, streams, device guards,
graph capture and the calls that lead there. csrc/torch/cuda.cpp is compiled as it is, the kernels
as in tests/cuda/emulation, and torch's operators are those of the CPU. Needs torch with CUDA and
the toolkit's headers. The command runs in a copy of the sources in FOLDER, by default a temporary
one.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import setuptools
import torch
from torch.utils import cpp_extension

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
FLAGS = ["-O2", "-std=c++20", "-fopenmp", "-ffp-contract=off", "-fvisibility=hidden", "-g0"]
FLAGS += ["-U_FORTIFY_SOURCE"]  # jumps between stacks
COPIED = ["bench", "csrc", "dropout_ext", "tests", "pyproject.toml", "setup.py", "README.md"]


def copy_sources(out: pathlib.Path) -> None:
    ignore = shutil.ignore_patterns("*.so", "_build.py", "__pycache__")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, out / name, ignore=ignore, dirs_exist_ok=True)
        else:
            shutil.copy2(ROOT / name, out / name)


def toolkit_include() -> str:
    home = cpp_extension.CUDA_HOME
    for folder in (home, "/usr/local/cuda"):
        if folder and os.path.exists(os.path.join(folder, "include", "cuda_runtime_api.h")):
            return os.path.join(folder, "include")
    raise SystemExit("no CUDA toolkit was found (CUDA_HOME)")


def build_runtime(out: pathlib.Path) -> pathlib.Path:
    """Named like the driver's library, which torch looks for and is not there."""
    library = out / "libcuda.so.1"
    command = ["g++", *FLAGS[:2], "-fPIC", "-shared", f"-I{toolkit_include()}"]
    command += [*map(str, sorted((HERE / "runtime").glob("*.cpp")))]
    command += ["-o", str(library), f"-Wl,-soname,{library.name}"]
    subprocess.run([*command, "-ldl"], check=True)
    return library


def build_extension(out: pathlib.Path) -> None:
    """As setup.py does, but for what nvcc compiles."""
    sources = [HERE / "operators.cpp", HERE / "launch.cpp"]
    sources += sorted((ROOT / "csrc" / "kernels" / "cpu").rglob("*.cpp"))
    sources += sorted((ROOT / "csrc" / "torch").rglob("*.cpp"))
    (runtime,) = pathlib.Path(torch.__file__).parents[1].glob("nvidia/*/lib/libcudart.so.*")
    extension = cpp_extension.CppExtension(
        name="dropout_ext._C",
        sources=[str(path) for path in sources if path.name != "cuda_absent.cpp"],
        include_dirs=[str(HERE), str(ROOT / "csrc"), toolkit_include()],
        libraries=["torch_cuda", "c10_cuda", f":{runtime.name}"],
        library_dirs=[str(runtime.parent)],
        extra_compile_args=[*FLAGS, "-Wno-unknown-pragmas"],
        define_macros=[("DROPOUT_EXT_CUDA", None), ("DROPOUT_EXT_CUDA_ARCHS", '"9.0"')],
    )
    distribution = setuptools.Distribution({"name": "dropout_ext", "ext_modules": [extension]})
    command = cpp_extension.BuildExtension(distribution)
    command.build_lib, command.build_temp = str(out), str(out / "build")
    command.ensure_finalized()
    command.run()
    (out / "dropout_ext" / "_build.py").write_text(
        f'VERSION = "0.2.0"\nTORCH_VERSION = "{torch.__version__}"\n'
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if not arguments.command:
        parser.error("a command is missing")
    with tempfile.TemporaryDirectory() as temporary:
        out = (arguments.out or pathlib.Path(temporary)).resolve()
        out.mkdir(parents=True, exist_ok=True)
        copy_sources(out)
        build_extension(out)
        before = {"LD_PRELOAD": build_runtime(out), "PYTHONPATH": out}
        environment = os.environ | {
            name: os.pathsep.join(filter(None, (str(path), os.environ.get(name))))
            for name, path in before.items()
        }
        return subprocess.run(arguments.command, cwd=out, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
