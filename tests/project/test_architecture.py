"""The layers: arrows point down only, formulas have one home, ops have one registration.

Catches: a torch header in a kernel, a second copy of the generator, compiler flags that break bit
for bit equality.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CSRC = ROOT / "csrc"
SOURCES = {".h", ".hpp", ".cuh", ".inl", ".cpp", ".cc", ".c", ".cu"}

pytestmark = pytest.mark.skipif(not CSRC.is_dir(), reason="not a source checkout")


def sources(*folders: str) -> Iterator[tuple[str, str]]:
    """Relative path and text without comments."""
    for folder in folders or ("",):
        for path in sorted((CSRC / folder).rglob("*")):
            if path.suffix in SOURCES:
                text = re.sub(r"//[^\n]*|/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
                yield str(path.relative_to(ROOT)), text


def includes(text: str) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', text, flags=re.MULTILINE)


def test_there_is_something_to_look_at() -> None:
    for folder in ("core", "kernels", "torch"):
        assert len(list(sources(folder))) > 1, folder


@pytest.mark.parametrize("folder", ["core", "kernels"])
def test_no_torch_below_the_binding_layer(folder: str) -> None:
    forbidden = re.compile(r"^(torch|ATen|c10|pybind11|caffe2|Python\.h)\b")
    for path, text in sources(folder):
        assert not [name for name in includes(text) if forbidden.match(name)], path
        assert not re.search(r"\b(at|c10|torch|pybind11|py)::", text), path


def test_core_stands_alone() -> None:
    for path, text in sources("core"):
        own = [name for name in includes(text) if "/" in name]
        assert all(name.startswith("core/") for name in own), path


def test_kernels_see_the_core_only() -> None:
    for path, text in sources("kernels"):
        own = [name for name in includes(text) if "/" in name]
        assert all(name.startswith(("core/", "kernels/")) for name in own), path


def test_cuda_and_cpu_kernels_do_not_see_each_other() -> None:
    for one, other in (("cpu", "cuda"), ("cuda", "cpu")):
        for path, text in sources(f"kernels/{one}"):
            assert not [n for n in includes(text) if n.startswith(f"kernels/{other}")], path


@pytest.mark.parametrize("macro", ["TORCH_LIBRARY", "PYBIND11_MODULE"])
def test_one_registration(macro: str) -> None:
    found = [path for path, text in sources() for _ in re.findall(rf"\b{macro}\s*\(", text)]
    assert len(found) == 1, found
    assert found[0].startswith("csrc/torch/")


@pytest.mark.parametrize("constant", ["D2511F53", "CD9E8D57", "9E3779B9", "BB67AE85"])
def test_the_generator_is_written_once(constant: str) -> None:
    """Its constants occur in csrc/core only, once."""
    found = [path for path, text in sources() for _ in re.findall(constant, text, re.IGNORECASE)]
    assert len(found) == 1, found
    assert found[0].startswith("csrc/core/")


def test_known_answers_are_checked_at_compile_time() -> None:
    core = "".join(text for _, text in sources("core"))
    for word in ("6627e8d5", "408f276d", "d16cfe09"):
        assert re.search(rf"static_assert\s*\([^;]*{word}", core, re.IGNORECASE | re.DOTALL), word


FORBIDDEN_FLAGS = [
    "march=native",
    "mtune=native",
    "ffast-math",
    "Ofast",
    "use_fast_math",
    "ftz=true",
]


@pytest.mark.parametrize("flag", FORBIDDEN_FLAGS)
def test_no_flag_that_changes_results(flag: str) -> None:
    for name in ("setup.py", "pyproject.toml", "setup.cfg", ".ci/run"):
        path = ROOT / name
        if path.is_file():
            assert flag not in path.read_text(), name
    for path_name, text in sources():
        assert flag not in text, path_name
        assert "fast-math" not in text, path_name
