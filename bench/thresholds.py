"""The project's thresholds: one list, judged at each place where a record of ours falls under it.

On the CPU they are measured on a grid of their own, every SIMD path included; on CUDA on the plan
as it was chosen.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.candidates import BASELINE, COPY, MUL, OURS
from bench.cases import format_size
from bench.elementwise import carry_out
from bench.extension import CHECKOUT, dropout_ext
from bench.options import Plan, sizes, words
from bench.report import Report
from bench.tables import as_frame, text

_MUL = "time_over_mul <= 1.18"
THRESHOLDS = (
    ("cpu", "medium and mode == 'inplace' and cpu_path == 'avx512'", "speed_up >= 40"),
    ("cpu", "medium and mode == 'inplace' and cpu_path == 'avx2'", "speed_up >= 20"),
    ("cpu", "medium and mode == 'inplace' and cpu_path == 'scalar'", "speed_up >= 2.5"),
    ("cpu", "medium and native and mode == 'forward'", f"speed_up >= 40 or {_MUL}"),
    ("cpu", "medium and native and mode == 'forward_backward'", f"speed_up >= 25 or {_MUL}"),
    ("cpu", "large and mode in ['forward', 'forward_backward']", "time_over_mul <= 1.15"),
    ("cpu", "large and mode == 'inplace'", "time_over_copy <= 1"),
    ("cpu", "small and mode in ['forward', 'forward_grad']", "time_over_baseline <= 0.6"),
    ("cpu", "small and mode == 'forward_backward'", "time_over_baseline <= 0.8"),
    ("cuda", "huge and mode != 'forward_grad'", "share_of_copy >= 0.92"),
    ("cuda", "huge and mode == 'forward_backward' and dtype == 'bfloat16'", "speed_up >= 1.25"),
    ("cuda", "below_64K and mode.str.startswith('forward')", "speed_up >= 0.98"),
    ("cuda", "strided and numel >= 2**26 and mode != 'inplace'", "share_of_copy >= 0.85"),
    ("any", "strided and worst", "time_over_contiguous <= 2"),
    ("any", "saved_bytes >= 0", "saved_bytes <= 16 and keeps_input == 0"),
)
"""Device, which records of ours (columns of `_ours`), and what each of them must reach.

On medium sizes with results in fresh memory 0.85 of torch.mul's throughput is enough: allocation
takes the time. On CUDA below 64K elements equal is enough; two percent is what timing can tell.
"""


def _ours(report: Report, path: str) -> pd.DataFrame:
    """Our records and saved bytes, with the columns that thresholds speak of.

    `native`: measured with the SIMD path in use; `worst`: the slowest layout of its place;
    `share_of_copy`: useful bytes per second over those of a contiguous copy_, which makes one pass.
    """
    frame = as_frame(r for r in [*report.records, *report.saved] if r["candidate"] == OURS)
    frame = frame.reindex(columns=[*{*frame, "saved_bytes", "keeps_input"}])
    n, dense, times = frame["numel"], frame["layout"] == "contiguous", frame["time_over_contiguous"]
    speed, times = frame["section"] == "speed", times.astype(float).mask(dense)
    places = [frame[key] for key in ("section", "mode", "dtype", "numel", "timer")]
    passes = frame["mode"].map({"forward_backward": 2.0}).fillna(1.0)
    derived: pd.DataFrame = frame.assign(
        time_over_contiguous=times,
        time_over_baseline=1 / frame["speed_up"].astype(float),
        share_of_copy=passes / frame["time_over_copy"].astype(float),
        small=speed & (n <= 1000),
        medium=speed & n.between(1 << 16, 1 << 22),
        large=speed & (n >= 1 << 24),
        huge=speed & (n >= 1 << 26),
        below_64K=speed & (n < 1 << 16),
        native=frame["cpu_path"] == path,
        strided=(frame["section"] == "layouts") & ~dense,
        worst=times == times.groupby(places).transform("max"),
        mode=frame["mode"].fillna(""),
    )
    return derived


def judge(device: str, report: Report, path: str) -> list[dict[str, Any]]:
    """A verdict for each record under a threshold; one that says so where there is none."""
    ours, found = _ours(report, path), []
    for where, which, wanted in THRESHOLDS:
        if where not in (device, "any"):
            continue
        rows = ours.query(which, engine="python")
        head: dict[str, Any] = {"threshold": which, "wanted": wanted, "where": "-"}
        if rows.empty:
            found.append({**head, "measured": "not measured here", "met": None})
        columns = list(dict.fromkeys(re.findall(r"(\w+) [<>=]=", wanted)))
        met = rows.eval(wanted, engine="python") if len(rows) else ()
        for (_, row), good in zip(rows.iterrows(), met, strict=True):
            place = [row["mode"], row["dtype"], format_size(row["numel"]), row["layout"]]
            place += [row["timer"]] if device == "cuda" else []
            head["where"] = " ".join(map(str, filter(pd.notna, place)))
            measured = ", ".join(f"{row[column]:.3g}" for column in columns)
            found.append({**head, "measured": measured, "met": bool(good)})
    return found


def verdict_table(verdicts: list[dict[str, Any]]) -> list[str]:
    """One line per verdict, and how many were met."""
    if not verdicts:
        return []
    names = {True: "met", False: "MISSED", None: "unknown"}
    frame = as_frame({**verdict, "met": names[verdict["met"]]} for verdict in verdicts)
    met, missed, none = (sum(v["met"] is kind for v in verdicts) for kind in names)
    total = f"thresholds: {met} met, {missed} missed, {none} not measured"
    return ["", "the project's thresholds", *text(frame.rename(columns={"met": ""})), total]


def _cpu_plans(plan: Plan) -> Iterator[Plan]:
    modes, dtypes = words("forward forward_backward inplace"), words("float32 bfloat16")
    speed = replace(plan, modes=modes, dtypes=dtypes, sections=("speed",))
    speed = replace(speed, candidates=(OURS, BASELINE, MUL, COPY))
    small = replace(speed, sizes=sizes("1 16 100 1000"), sections=("speed", "saved"))
    yield replace(small, modes=words("forward forward_backward forward_grad"))
    yield replace(speed, sizes=sizes("64K 256K 1M 4M"))
    slow = replace(plan.budget, trial_seconds=max(1.0, plan.budget.trial_seconds))
    yield replace(speed, candidates=(OURS, MUL, COPY), sizes=sizes("16M 64M"), budget=slow)
    layouts = replace(speed, candidates=(OURS,), sections=("layouts",), layout_modes=modes)
    yield replace(layouts, layout_sizes=sizes("1M 4M 16M"))


def _forced(path: str, plan: Plan) -> list[dict[str, Any]]:
    """In-place records of a process in which the path is forced, nn.Dropout beside it."""
    options = "--sections speed --modes inplace --dtypes float32 bfloat16 --sizes 64K 256K 1M 4M "
    options += f"--candidates {OURS} {BASELINE} {COPY} --p {plan.probabilities[0]} "
    options += f"--seconds {plan.budget.trial_seconds}"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records.json"
        command = [sys.executable, "-m", "bench", *options.split(), "--json", str(file)]
        forced = {**os.environ, "DROPOUT_EXT_CPU": path}
        subprocess.run(command, cwd=CHECKOUT, env=forced, stdout=subprocess.DEVNULL, check=True)
        records: list[dict[str, Any]] = json.loads(file.read_text())["records"]
        return records


def check(plan: Plan, report: Report) -> list[dict[str, Any]]:
    """Measures and judges."""
    build = dropout_ext.build_info()
    for part in _cpu_plans(plan) if plan.device == "cpu" else (plan,):
        carry_out(part, report)
    for path in build["cpu_paths"] if plan.device == "cpu" else ():
        if path != build["cpu_path"]:
            report.records += _forced(path, plan)
    return judge(plan.device, report, build["cpu_path"])
