"""Measures what the bars need, on a fixed grid, every CPU path included."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from bench import bars_cpu, bars_cuda
from bench.bars import Verdict
from bench.candidates import CANDIDATES, COPY, MUL, RIVAL, SUBJECT
from bench.cases import parse_size
from bench.extension import CHECKOUT, dropout_ext
from bench.options import Plan
from bench.record import Record
from bench.run import Report, carry_out

_DTYPES = ("float32", "bfloat16")
_MEDIUM = ("64K", "256K", "1M", "4M")


def _sizes(*texts: str) -> tuple[int, ...]:
    return tuple(parse_size(text) for text in texts)


def _cpu_plans(plan: Plan) -> Iterator[Plan]:
    compared = tuple(CANDIDATES[name] for name in (SUBJECT, RIVAL, MUL, COPY))
    speed = replace(plan, candidates=compared, dtypes=_DTYPES, sections=("speed",))
    whole = ("forward", "forward_backward")
    yield replace(
        speed,
        sizes=_sizes("1", "16", "100", "1000"),
        modes=("forward", "forward_grad", "forward_backward"),
        sections=("speed", "saved"),
    )
    yield replace(speed, sizes=_sizes(*_MEDIUM), modes=(*whole, "inplace"))
    without_rival = tuple(c for c in compared if c.name != RIVAL)
    large = replace(speed, sizes=_sizes("16M", "64M"), modes=(*whole, "inplace"))
    slow = replace(plan.budget, trial_seconds=max(1.0, plan.budget.trial_seconds))
    yield replace(large, candidates=without_rival, budget=slow)
    yield replace(
        plan,
        candidates=(CANDIDATES[SUBJECT],),
        dtypes=_DTYPES,
        sections=("layouts",),
        layout_sizes=_sizes("1M", "4M", "16M"),
        layout_modes=(*whole, "inplace"),
    )


def _forced(path: str, plan: Plan) -> list[Record]:
    """In-place records of a process in which the path is forced, nn.Dropout beside it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.json"
        options = ["--sections", "speed", "--modes", "inplace", "--dtypes", *_DTYPES]
        options += ["--candidates", SUBJECT, RIVAL, COPY, "--sizes", *_MEDIUM]
        options += ["--p", str(plan.probabilities[0]), "--seconds", str(plan.budget.trial_seconds)]
        options += ["--json", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", "bench", *options],
            cwd=CHECKOUT,
            env={**os.environ, "DROPOUT_EXT_CPU": path},
            stdout=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0 or not file.exists():
            tqdm.write(f"the {path} path could not be measured (exit status {done.returncode})")
            return []
        return [Record(**line) for line in json.loads(file.read_text())["records"]]


def check(plan: Plan, report: Report) -> list[Verdict]:
    """Measures and judges: on the CPU the bars' own grid, on CUDA the plan as it was chosen."""
    records = report.results.records
    if plan.device == "cuda":
        carry_out(plan, report)
        return bars_cuda.cuda_verdicts(records, report.saved)
    for part in _cpu_plans(plan):
        carry_out(part, report)
    build = dropout_ext.build_info()
    native = build["cpu_path"]
    for path in bars_cpu.IN_PLACE:
        if path != native and path in build["cpu_paths"]:
            records += _forced(path, plan)
    return bars_cpu.cpu_verdicts(records, report.saved, native)
