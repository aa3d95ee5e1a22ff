"""Makes mistakes in the sources, one at a time, and names the test that caught each.

    python -m tests.mutations [--list] [--folder FOLDER] [WORD ...]

Works in a copy, which it builds once; after that it compiles what a mutation changes. With words,
only the mutations whose place or name contains one of them. FOLDER keeps the copy, built, for
another run on the same sources. The exit status is 1 if a mutation survived, no longer applies or
does not compile, and if its tests fail without it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.mutations import MUTATIONS
from tests.mutations.mutation import MissingAnchor, Mutation
from tests.mutations.workspace import ROOT, Workspace


def obstacle(mutation: Mutation, cpu_paths: Sequence[str]) -> str | None:
    """Why the mutation cannot be run on this machine."""
    if mutation.path is not None and mutation.path not in cpu_paths:
        return f"this machine has no {mutation.path}"
    if mutation.mock and torch.version.cuda is None:
        return "needs torch with CUDA"
    return None


def outcome(mutation: Mutation, workspace: Workspace) -> tuple[bool, str]:
    """Was it caught, and by what?"""
    with workspace.mutated(mutation):
        error = workspace.build() if mutation.compiled and not mutation.mock else None
        if error is not None:
            caught = not mutation.tests and "static assertion" in error
            return caught, error if caught else f"does not compile: {error}"
        failed = workspace.test(mutation.tests, mutation.mock) if mutation.tests else None
    return failed is not None, failed or "SURVIVED"


def check_anchors(mutations: Sequence[Mutation]) -> int:
    """Says which mutations no longer apply; how many."""
    missing = 0
    for mutation in mutations:
        try:
            mutation.file(ROOT)
        except MissingAnchor as error:
            missing += 1
            print(f"no longer applies: {error}\n", file=sys.stderr)
    return missing


def check_tests(mutations: Sequence[Mutation], workspace: Workspace) -> int:
    """The tests of the mutations pass without them, or nothing would be shown by their failure."""
    wrong = 0
    for mock in (False, True):
        tests = sorted({test for each in mutations if each.mock == mock for test in each.tests})
        if tests and (failed := workspace.test(tests, mock)):
            print(f"fails without any mutation: {failed}", file=sys.stderr)
            wrong += 1
    return wrong


def run(mutations: Sequence[Mutation], workspace: Workspace) -> int:
    """Prints a line for each; how many were not caught."""
    workspace.prepare()
    cpu_paths = workspace.cpu_paths()
    possible = [each for each in mutations if obstacle(each, cpu_paths) is None]
    for mutation in mutations:
        if reason := obstacle(mutation, cpu_paths):
            print(f"{'not run':9} {mutation.name}: {reason}", flush=True)
    if wrong := check_tests(possible, workspace):
        return wrong
    missed = 0
    for mutation in possible:
        began = time.monotonic()
        caught, by = outcome(mutation, workspace)
        missed += not caught
        seconds = time.monotonic() - began
        word = "caught" if caught else "MISSED"
        print(f"{word:9} {mutation.name} ({seconds:.0f} s)\n{'':9} {by}", flush=True)
    print(f"{len(possible) - missed} of {len(possible)} mutations were caught", flush=True)
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", metavar="WORD")
    parser.add_argument("--list", action="store_true", help="name the mutations, run nothing")
    parser.add_argument("--folder", type=Path, help="keep the copy of the sources here")
    arguments = parser.parse_args()
    mutations = [
        each
        for each in MUTATIONS
        if not arguments.words
        or any(word in f"{each.where}: {each.name}" for word in arguments.words)
    ]
    if arguments.list:
        print(*(f"{each.where}: {each.name}" for each in mutations), sep="\n")
        return 0
    missing = check_anchors(mutations)
    if missing:
        return 1
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        return int(run(mutations, Workspace(folder)) > 0)


if __name__ == "__main__":
    sys.exit(main())
