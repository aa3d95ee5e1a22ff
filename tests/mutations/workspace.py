"""A copy of the sources in which mutations are made, built and tested."""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.mutations.mutation import Mutation

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (
    "csrc",
    "dropout_ext",
    "tests",
    "bench",
    "pyproject.toml",
    "setup.py",
    "README.md",
    ".ci",
)
_LEFT_OUT = ("*.so", "_build.py", "__pycache__")
_MOCK = "tests/cuda/mock_runtime/run.py"
SECONDS = 600  # after which a test run counts as hanging


class Workspace:
    """The copy in `folder`, built once; mutations build what they change."""

    def __init__(self, folder: Path) -> None:
        self.tree, self._built = folder / "tree", folder / "built"
        self._mock = folder / "mock"
        self.tree.mkdir(parents=True, exist_ok=True)
        self._environment = os.environ | {"FORCE_CUDA": "0", "PYTHONDONTWRITEBYTECODE": "1"}

    def prepare(self, build: bool) -> None:
        """The sources as they are, and built; what was built before is not built again."""
        if self._built.is_dir():
            self._restore()
        self._copy_sources()
        if not build:
            return
        if error := self.build():
            raise SystemExit(f"the sources do not build as they are:\n{error}")
        shutil.rmtree(self._built, ignore_errors=True)
        shutil.copytree(self.tree / "build", self._built / "build")
        for library in (self.tree / "dropout_ext").glob("_C*.so"):
            shutil.copy2(library, self._built)

    def _copy_sources(self) -> None:
        """Files whose text is the same keep their time, which is what a build looks at."""

        def copy(source: str, target: str) -> None:
            if not (os.path.exists(target) and filecmp.cmp(source, target, shallow=False)):
                shutil.copy(source, target)

        for name in _SOURCES:
            if (ROOT / name).is_dir():
                ignore = shutil.ignore_patterns(*_LEFT_OUT)
                shutil.copytree(
                    ROOT / name, self.tree / name, ignore=ignore, copy_function=copy,
                    dirs_exist_ok=True,
                )  # fmt: skip
            elif (ROOT / name).is_file():
                copy(str(ROOT / name), str(self.tree / name))

    def build(self) -> str | None:
        """Compiles what has changed; the compiler's first error, if there is one."""
        command = [sys.executable, "setup.py", "build_ext", "--inplace"]
        done = self._run(command)
        if done.returncode == 0:
            return None
        errors = re.findall(r"error: (.+)", done.stdout)
        return errors[0] if errors else done.stdout[-2000:]

    @contextmanager
    def mutated(self, mutation: Mutation) -> Iterator[None]:
        """The sources with this mistake in them. As they were afterwards, objects included."""
        file = mutation.file(self.tree)
        before, times = file.read_text(), file.stat()
        file.write_text(before.replace(mutation.old, mutation.new))
        try:
            yield
        finally:
            file.write_text(before)
            if not mutation.mock:  # whose objects are not restored, and have to look old
                os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
            if mutation.compiled and not mutation.mock:
                self._restore()

    def _restore(self) -> None:
        shutil.rmtree(self.tree / "build", ignore_errors=True)
        shutil.copytree(self._built / "build", self.tree / "build")
        for library in self._built.glob("_C*.so"):
            shutil.copy2(library, self.tree / "dropout_ext")

    def test(self, tests: Sequence[str], mock: bool = False) -> str | None:
        """The first test that fails, None if all pass.

        Raises:
            RuntimeError: no test ran.
        """
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider"]
        command += [*(["-m", "needs_cuda"] if mock else []), *tests]
        if mock:
            command = ["env", "DROPOUT_EXT_REQUIRE_CUDA=1", sys.executable, _MOCK, "--out",
                       str(self._mock), *command]  # fmt: skip
        try:
            done = self._run(command, SECONDS)
        except subprocess.TimeoutExpired:
            return f"hangs for {SECONDS} s"
        if done.returncode == 0:
            return None
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
        if failed:
            return failed[1]
        if done.returncode in (2, 4, 5) or (mock and "passed" not in done.stdout):
            raise RuntimeError(f"no test ran:\n{done.stdout[-2000:]}")
        return f"the process ends with status {done.returncode}"

    def cpu_paths(self) -> list[str]:
        code = "import dropout_ext; print(*dropout_ext.build_info()['cpu_paths'])"
        return self._run([sys.executable, "-c", code]).stdout.split()

    def _run(
        self, command: Sequence[str], seconds: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.tree,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
