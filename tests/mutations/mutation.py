"""What a mutation is, and how it is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_SUFFIXES = {".h", ".inl", ".cpp", ".cuh", ".cu", ".py"}


class MissingAnchor(Exception):
    """The text that a mutation replaces is not there, or not once."""


@dataclass(frozen=True)
class Mutation:
    """A mistake, and the tests that have to fail because of it.

    Attributes:
        name: says what is wrong.
        where: the file, or a folder if the text is to be found wherever it moves within it.
        old: occurs once there.
        new: takes its place.
        tests: files, or tests within them, of which at least one has to fail; empty if a
            static_assert has to stop the build.
        path: the SIMD path that the mistake is in; without it the mutation cannot be run.
        mock: the tests run under the mock CUDA runtime, which needs torch with CUDA.
    """

    name: str
    where: str
    old: str
    new: str
    tests: tuple[str, ...]
    path: str | None = None
    mock: bool = False

    @property
    def compiled(self) -> bool:
        """Is the file part of the extension? The kernels for CUDA are compiled by their tests."""
        return self.where.startswith("csrc") and not self.where.startswith("csrc/kernels/cuda")

    def file(self, root: Path) -> Path:
        """The file that holds the anchor.

        Raises:
            MissingAnchor: says what was looked for, and where it was found instead.
        """
        place = root / self.where
        files = [place] if place.is_file() else sorted(place.rglob("*"))
        counts = {
            file: file.read_text().count(self.old)
            for file in files
            if file.suffix in _SUFFIXES and file.is_file()
        }
        found = {file: count for file, count in counts.items() if count}
        if list(found.values()) != [1]:
            where = ", ".join(f"{n} in {file.relative_to(root)}" for file, n in found.items())
            raise MissingAnchor(
                f"{self.name}: the anchor must occur once in {self.where}, but was found "
                f"{where or 'nowhere'}:\n{self.old}"
            )
        return next(iter(found))
