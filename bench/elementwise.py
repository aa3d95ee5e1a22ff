"""Elementwise dropout over sizes, dtypes, modes and layouts."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from itertools import product

import torch
from tqdm import tqdm

from bench.candidates import BASELINE, COPY, MUL, OURS, make_run
from bench.cases import LAYOUT_MULTIPLE, LAYOUTS, Case, format_size
from bench.extension import dropout_ext
from bench.loops import Buffers, capture
from bench.options import Plan
from bench.report import Report
from bench.runner import Job, measure
from bench.saved import saved_records

_FORWARD_GRAD_LIMIT = 1 << 12  # wanting a gradient costs a constant; not measured above this size
_REPLAY_LIMIT = 1 << 20  # above this size a kernel is longer than its launch


def _groups(plan: Plan) -> Iterator[list[Case]]:
    """Cases to time side by side: one, or every layout of a size."""
    if "speed" in plan.sections:
        grid = product(plan.modes, plan.dtypes, plan.probabilities, plan.sizes)
        for mode, dtype, p, numel in grid:
            if mode != "forward_grad" or numel <= _FORWARD_GRAD_LIMIT:
                yield [Case("speed", mode, dtype, numel, p, plan.device)]
    if "layouts" in plan.sections:
        for mode, dtype, numel in product(plan.layout_modes, plan.dtypes, plan.layout_sizes):
            if numel % LAYOUT_MULTIPLE == 0:
                where = (mode, dtype, numel, plan.probabilities[0], plan.device)
                yield [Case("layouts", *where, layout) for layout in LAYOUTS]


def _jobs(case: Case, candidates: tuple[str, ...]) -> Iterator[Job]:
    """Every candidate, on CUDA also replayed where a call is short."""
    buffers = Buffers(case)
    count = len(buffers.inputs)
    path = dropout_ext.build_info()["cpu_path"] if case.device == "cpu" else None
    for name in candidates:
        if case.section == "layouts" and name not in (OURS, BASELINE, MUL, COPY):
            continue
        labels = {"candidate": name, **asdict(case), "cpu_path": path}
        make = partial(make_run, name, case, buffers)
        yield Job(labels, make, buffers.refresh, count)
        if case.device == "cuda" and case.numel <= _REPLAY_LIMIT:
            unit = count * math.ceil(32 / count)  # whole turns of the rotated buffers
            replay = partial(lambda make, unit: capture(make(), unit), make, unit)
            yield Job(labels, replay, buffers.refresh, count, unit, "graph replay")


def carry_out(plan: Plan, report: Report) -> None:
    """Measures every group of the plan behind a progress bar."""
    if plan.device == "cuda":  # the default stream cannot be captured
        torch.cuda.set_stream(torch.cuda.Stream())  # type: ignore[no-untyped-call, unused-ignore]
    if "saved" in plan.sections:
        p = plan.probabilities[0]
        report.saved += saved_records(plan.dtypes, 1 << 20, p, plan.device)
    progress = tqdm(list(_groups(plan)), unit="case", leave=False, disable=None)
    for group in progress:
        case = group[0]
        progress.set_description(f"{case.mode} {case.dtype} {format_size(case.numel)}")
        if case.device == "cuda":
            torch.cuda.empty_cache()
        jobs = (job for case in group for job in _jobs(case, plan.candidates))
        measure(jobs, plan.device, plan.budget, report)
