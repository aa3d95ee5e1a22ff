"""README, docs and their kin say what is so.

Catches: an example that does not run; a link, a file or a test that is named but not there; a
promise without a test; a command whose module moved; an API page that its docstrings left behind.
"""

from __future__ import annotations

import ast
import re
import runpy
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
PAGES = [*TOP, *sorted(DOCS.glob("*.md"))]
LANGUAGES = {"python", "shell", "text"}

pytestmark = pytest.mark.skipif(
    not (DOCS / "api.md").is_file() or not TOP[-1].is_file(), reason="not a source checkout"
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)

_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_FILE = re.compile(r"`((?:bench|csrc|docs|dropout_ext|tests|\.ci)/[\w./-]+)(?:::(\w+))?[^`]*`")
_TEST = re.compile(r"`([\w/]+\.py)?(?:::(\w+))?`")


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Language and text of each fenced block."""
    return ((found[1], found[2]) for found in _FENCE.finditer(page.read_text()))


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


@each_page
def test_examples_run(page: Path) -> None:
    """In order, in one namespace a page, warnings as errors; every block says what it is."""
    namespace: dict[str, object] = {"__name__": page.stem}
    for language, text in blocks(page):
        assert language in LANGUAGES, f"a block of {language!r}: {text}"
        if language == "python":
            exec(compile(text, page.name, "exec"), namespace)


def test_readme_has_examples_and_is_a_front_door() -> None:
    assert [language for language, _ in blocks(ROOT / "README.md")].count("python") >= 1
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


@each_page
def test_commands_name_what_is_there(page: Path) -> None:
    """Modules after ``python -m`` and scripts of this project, in blocks and in prose."""
    if page.name == "CHANGELOG.md":
        return  # names what is gone, too
    text = page.read_text()
    for module in re.findall(r"python -m ([\w.]+\w)", text):
        assert find_spec(module) is not None, module
    for script in re.findall(r"(?:python |^|`)((?:bench|docs|tests)/[\w/.]+\.(?:py|sh))\b", text):
        assert (ROOT / script).is_file(), script


def anchors(page: Path) -> set[str]:
    """The anchors of the headings, as GitHub makes them."""
    slugs = [
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")
        for heading in _HEADING.findall(prose(page))
    ]
    repeats = Counter[str]()
    found = set()
    for slug in slugs:
        found.add(f"{slug}-{repeats[slug]}" if repeats[slug] else slug)
        repeats[slug] += 1
    return found


@each_page
def test_links_resolve(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    for name, test in _FILE.findall(prose(page)):
        if any(part in ("_build.py", "results") for part in Path(name).parts):
            continue  # what a build or a measurement writes
        assert (ROOT / name).exists(), name
        assert not test or test in names_of_tests(ROOT / name), f"{name}::{test}"


def test_index_lists_every_page() -> None:
    linked = set(_LINK.findall((DOCS / "README.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - {"README.md"} <= linked


def names_of_tests(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def promises() -> Iterator[tuple[str, str]]:
    """Each row of the tables of docs/guarantees.md: the promise, and what backs it."""
    for line in (DOCS / "guarantees.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 2 and cells[1] != "test":
            yield cells[0], cells[1]


def test_every_promise_has_a_test_that_exists() -> None:
    """A name without a file is in the file before it."""
    assert sum(1 for _ in promises()) > 40
    for promise, backing in promises():
        named, file = _TEST.findall(backing), ""
        assert named, f"nothing backs {promise!r}"
        for given, test in named:
            file = given or file
            path = ROOT / "tests" / file
            assert file and path.is_file(), f"{promise!r}: there is no tests/{file}"
            assert not test or test in names_of_tests(path), f"{promise!r}: {file} has no {test}"


def test_api_page_is_that_of_the_docstrings() -> None:
    """`python docs/api.py` writes it."""
    page = runpy.run_path(str(DOCS / "api.py"))["page"]()
    assert (DOCS / "api.md").read_text() == page


@each_page
def test_no_path_of_a_machine(page: Path) -> None:
    assert not re.findall(
        r"(?<![\w.)>-])/(?:home|root|work|opt|tmp|usr|mnt|var)/\S*", page.read_text()
    )
