"""Carries out a plan and gathers what it finds."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from bench import graphs
from bench.candidates import RIVAL, SUBJECT
from bench.cases import Case, format_size, layout_grid, speed_grid
from bench.measure import Results, measure
from bench.options import Plan
from bench.record import SCHEMA
from bench.saved import Saved, saved_table

SAVED_AT = 1 << 20
"""Elements at which the bytes saved for backward are counted."""

_IN_LAYOUTS = (SUBJECT, RIVAL, "torch.mul", "copy_")


@dataclass
class Report:
    """All that goes into the JSON output."""

    facts: dict[str, Any]
    results: Results = field(default_factory=Results)
    saved: list[Saved] = field(default_factory=list)
    bars: list[dict[str, Any]] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The stable form: `SCHEMA` names it, each list has records of equal fields."""
        return {
            "schema": SCHEMA,
            "facts": self.facts,
            "records": [asdict(record) for record in self.results.records],
            "saved": [asdict(line) for line in self.saved],
            "bars": self.bars,
            "failures": [asdict(failure) for failure in self.results.failures],
        }


def _groups(plan: Plan) -> Iterator[tuple[str, list[Case]]]:
    if "speed" in plan.sections:
        grid = speed_grid(plan.modes, plan.dtypes, plan.sizes, plan.probabilities, plan.device)
        yield from (("speed", group) for group in grid)
    if "layouts" in plan.sections:
        p = plan.probabilities[0]
        strided = layout_grid(plan.layout_modes, plan.dtypes, plan.layout_sizes, p, plan.device)
        yield from (("layouts", group) for group in strided)


def carry_out(plan: Plan, report: Report) -> None:
    """Measures every group of the plan behind a progress bar."""
    torch.manual_seed(0)
    groups = list(_groups(plan))
    if "saved" in plan.sections:
        p = plan.probabilities[0]
        report.saved += saved_table(list(plan.dtypes), SAVED_AT, p, plan.device)
    progress = tqdm(groups, unit="case", dynamic_ncols=True, leave=False, disable=None)
    with graphs.capturable(plan.device), progress:
        for section, group in progress:
            case = group[0]
            progress.set_description(f"{case.mode} {case.dtype} {format_size(case.numel)}")
            candidates = plan.candidates
            if section == "layouts":
                candidates = tuple(c for c in candidates if c.name in _IN_LAYOUTS)
            measure(section, group, candidates, plan.budget, report.results)
