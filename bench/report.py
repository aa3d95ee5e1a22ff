"""What every command of bench shares: options, the head of the output, and the JSON file."""

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bench.facts import describe, facts, seconds_of_others

SCHEMA = "dropout_ext.bench/2"

_NOTICEABLE = 0.05  # share of the CPU's time used by others that disturbs a run


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command."""
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, help="threads on the CPU (default: torch's choice)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write facts and records")


def brief(error: Exception) -> str:
    """Type and first line of an error, folders left out of the paths in it."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return re.sub(r"/[^\s'\"]*/", "", text)


def to_json(content: dict[str, Any]) -> str:
    """JSON with one record a line and four significant digits, so that results diff well."""
    rounded = json.loads(json.dumps(content), parse_float=lambda t: float(f"{float(t):.4g}"))
    parts = []
    for key, value in rounded.items():
        lines = ",\n".join(map(json.dumps, value)) if isinstance(value, list) else None
        parts.append(f'"{key}": ' + (f"[\n{lines}\n]" if lines else json.dumps(value)))
    return "{\n" + ",\n".join(parts) + "\n}\n"


class Report:
    """Facts, records and everything else that a run prints and writes."""

    def __init__(self, module: str, chosen: argparse.Namespace) -> None:
        if chosen.device == "cuda" and not torch.cuda.is_available():
            raise SystemExit("--device cuda: this torch sees no CUDA device")
        if chosen.threads:
            torch.set_num_threads(chosen.threads)
        torch.manual_seed(0)
        self.facts = facts(chosen.device, module)
        self.task: dict[str, Any] = {}
        self.records: list[dict[str, Any]] = []
        self.saved: list[dict[str, Any]] = []
        self.verdicts: list[dict[str, Any]] = []
        self.failures: list[dict[str, Any]] = []
        self._file: Path | None = chosen.json
        self._start = time.monotonic(), seconds_of_others()
        print("\n".join(describe(self.facts)))

    def finish(self, lines: Sequence[str]) -> None:
        """Prints the tables, who failed, whether others disturbed the run; writes the JSON file."""
        then, before = self._start
        capacity = (time.monotonic() - then) * self.facts["cpu_count"]
        share = self.facts["cpu_used_by_others"] = (seconds_of_others() - before) / capacity
        print("\n".join(lines))
        for failure in self.failures:
            print("failed:", *failure.values())
        if share >= _NOTICEABLE:
            print(f"\nother processes used {share:.0%} of the CPU: the figures are disturbed")
        if self._file:
            lists = ("records", "saved", "verdicts", "failures")
            content = {"schema": SCHEMA, "facts": self.facts, "task": self.task}
            self._file.write_text(to_json(content | {name: getattr(self, name) for name in lists}))
