"""Writes docs/api.md from the signatures and docstrings of the public names.

    python docs/api.py [--check]

``--check`` changes nothing and returns 1 if the page differs.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

import dropout_ext

PAGE = Path(__file__).with_name("api.md")
HEAD = """# API

Every public name, from its docstring. `python docs/api.py` writes this page; a test compares them.
`dropout_ext.modules` has the modules too, under the same names.
"""
_SECTION = re.compile(r"(Args|Attributes|Shape|Returns|Yields|Raises|Warns):$")
_LISTED = ("Args", "Attributes", "Raises", "Warns")
_WIDTH = 92


def source(thing: Any) -> ast.FunctionDef | None:
    """The definition of a function, or of a class's constructor; None if it has none."""
    function = thing.__init__ if inspect.isclass(thing) else inspect.unwrap(thing)
    try:
        (found,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError):
        return None
    return found if isinstance(found, ast.FunctionDef) else None


def parameters(thing: Any, definition: ast.FunctionDef) -> Iterator[str]:
    """Each parameter with its type as it is written and its default as it is."""
    given = definition.args
    own = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    types = {a.arg: ast.unparse(a.annotation) for a in own if a and a.annotation}
    keyword_only = False
    for parameter in inspect.signature(thing).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only and not given.vararg:
            yield "*"
        keyword_only = keyword_only or parameter.kind is parameter.KEYWORD_ONLY
        stars = 2 if parameter.kind is parameter.VAR_KEYWORD else 0
        stars = 1 if parameter.kind is parameter.VAR_POSITIONAL else stars
        text = f"{'*' * stars}{parameter.name}: {types[parameter.name]}"
        default = parameter.default
        yield text if default is parameter.empty else f"{text} = {default!r}"


def signature(name: str, thing: Any) -> list[str]:
    """A block with the signature; nothing for a class whose constructor is not written out."""
    definition = source(thing)
    if definition is None:
        return []
    parts = list(parameters(thing, definition))
    result = (
        ""
        if inspect.isclass(thing) or definition.returns is None
        else ast.unparse(definition.returns)
    )
    arrow = f" -> {result}" if result else ""
    line = f"{name}({', '.join(parts)}){arrow}"
    if len(line) > _WIDTH:
        line = "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){arrow}"])
    return ["```text", line, "```", ""]


def markdown(text: str) -> str:
    """Roles and literals of reStructuredText as Markdown."""
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text.replace("``", "`"))


def entries(lines: Iterable[str]) -> Iterator[str]:
    """Each ``name: text`` of a section as a list item."""
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        name, colon, text = line.partition(": ")
        if line and not line.startswith(" ") and colon:
            names = ", ".join(f"`{part}`" for part in name.split(", "))
            yield f"- {names}: {text}"
        else:
            yield f"  {line.strip()}" if line else ""


def body(docstring: str) -> Iterator[str]:
    """The lines of a docstring, its sections headed and listed."""
    section, lines = "", list[str]()

    def finished() -> Iterator[str]:
        if section:
            yield from ("", f"**{section}**", "")
        if section in _LISTED:
            yield from entries(lines)
        else:
            yield from textwrap.dedent("\n".join(lines)).splitlines()

    for line in inspect.cleandoc(docstring).splitlines():
        if found := _SECTION.match(line):
            yield from finished()
            section, lines = found[1], []
        else:
            lines.append(line)
    yield from finished()


def entry(prefix: str, name: str, thing: Any) -> str:
    text = "\n".join(body(thing.__doc__))
    return "\n".join([f"### {prefix}{name}", "", *signature(name, thing), markdown(text)])


def page() -> str:
    public = {name: getattr(dropout_ext, name) for name in dropout_ext.__all__}
    modules = {n: t for n, t in public.items() if inspect.isclass(t) and issubclass(t, nn.Module)}
    functions = {n: getattr(dropout_ext.functional, n) for n in dropout_ext.functional.__all__}
    rest = {n: t for n, t in public.items() if n not in modules and not inspect.ismodule(t)}
    parts = [HEAD]
    for heading, prefix, things in (
        ("Modules", "", modules),
        ("Functions", "functional.", functions),
        ("States, models, the build", "", rest),
    ):
        parts.append(f"## {heading}\n")
        parts += [entry(prefix, name, thing) + "\n" for name, thing in things.items()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    differs = not PAGE.is_file() or PAGE.read_text() != page()
    if not check:
        PAGE.write_text(page())
    return int(check and differs)


if __name__ == "__main__":
    sys.exit(main())
