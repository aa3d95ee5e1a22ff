"""What the source distribution and the wheel hold.

Catches: a source distribution that lacks a file, or has one that a build wrote; a need of the build
that is not declared; a wheel that lacks a module or has one too many.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import dropout_ext

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("bench", "csrc", "docs", "dropout_ext", "tests")  # what the repository consists of
INFO = dropout_ext.build_info()

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").is_file(), reason="not a source tree")


def repository() -> set[str]:
    """The files that somebody wrote."""
    files = {path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()}
    files |= {*ROOT.glob("*.md"), ROOT / ".ci/run", ROOT / ".clang-format", ROOT / "LICENSE"}
    files |= {ROOT / name for name in ("MANIFEST.in", "pyproject.toml", "setup.py")}
    return {
        str(path.relative_to(ROOT))
        for path in files
        if path.suffix not in (".pyc", ".so") and path != ROOT / "dropout_ext/_build.py"
    }


def python(*arguments: str, folder: Path, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.fail(done.stdout)


@pytest.fixture(scope="module")
def source_distribution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made where something was built before, as in any checkout that is worked on."""
    folder = tmp_path_factory.mktemp("sdist")
    for name in repository():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in ("dropout_ext/_build.py", "dropout_ext/_C.so", "tests/built.so", "tests/a.pyc"):
        (folder / name).touch()
    make = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    python("-c", make, folder=folder, FORCE_CUDA="0", CXX="c++")
    (archive,) = (folder / "dist").iterdir()
    return archive


@pytest.mark.thorough
def test_source_distribution_is_the_repository(source_distribution: Path) -> None:
    top = source_distribution.name.removesuffix(".tar.gz")
    assert top == f"dropout_ext-{INFO['version'].split('+')[0]}"  # built for nothing yet
    with tarfile.open(source_distribution) as archive:
        packed = {m.name.removeprefix(f"{top}/") for m in archive.getmembers() if m.isfile()}
    generated = {name for name in packed if name.startswith("dropout_ext.egg-info/")}
    assert packed - generated - {"PKG-INFO", "setup.cfg"} == repository()


@pytest.mark.slow
def test_source_distribution_builds_under_isolation(
    source_distribution: Path, tmp_path: Path
) -> None:
    """The build environment is pip's own: what setup.py imports must be declared. It has the torch
    of this one, as otherwise pip would take its newest, with gigabytes of CUDA libraries."""
    constraint = tmp_path / "constraint.txt"
    constraint.write_text(f"torch=={metadata.version('torch')}\n")
    python(
        *("-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path)),
        str(source_distribution),
        folder=tmp_path,
        FORCE_CUDA="0",
        PIP_CONSTRAINT=str(constraint),
        PIP_BUILD_CONSTRAINT=str(constraint),  # its name from pip 25.3 on
    )
    (wheel,) = tmp_path.glob("*.whl")
    version = wheel.name.split("-")[1]
    assert version.split("+")[1] == INFO["version"].split("+")[1].split(".")[0] + ".cpu"
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
        archive.extractall(tmp_path / "installed")
    modules = {name for name in repository() if name.startswith("dropout_ext/")}
    (binary,) = (name for name in packed if name.endswith(".so"))
    found = {name for name in packed if not name.startswith(f"dropout_ext-{version}.dist-info/")}
    assert found == modules | {binary, "dropout_ext/_build.py"}
    use = (
        "import importlib.metadata, torch, dropout_ext as d\n"
        f"assert d.__file__.startswith({str(tmp_path)!r}), d.__file__\n"
        f"assert d.__version__ == importlib.metadata.version('dropout_ext') == {version!r}\n"
        "assert d.functional.dropout(torch.ones(100), 0.5).unique().tolist() == [0, 2]\n"
    )
    python("-c", use, folder=tmp_path, PYTHONPATH=str(tmp_path / "installed"))
