"""``python -m bench.attention``: attention whose weights are dropped, forward and backward.

Ours beside torch's, with dropout and without: without it torch has a kernel that holds no weights,
and its time is what dropout should cost nothing over. Interleaved. Peak memory is measured apart,
in a process for each.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import pandas as pd
import torch
from matplotlib import pyplot
from torch import Tensor, nn

from bench.candidates import BASELINE, MUL, OURS
from bench.cases import DTYPES
from bench.extension import dropout_ext
from bench.plot import STYLES
from bench.report import Report, add_options
from bench.runner import Job, Record, measure
from bench.tables import as_frame, ratio, speed, text
from bench.thresholds import verdict_table
from bench.timing import Budget, Run

P, HEADS, WIDTH, TOKENS = 0.1, 8, 64, 2048
TORCH, WITHOUT = "torch", "torch, no dropout"
CANDIDATES = (OURS, TORCH, WITHOUT)
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
LONGEST = 4096  # of torch with dropout, whose weights take gigabytes
PEAK_LENGTH = 8192
VARIANTS = ("plain", "causal", "key padding", "grouped heads")
MASKED = ("key padding", "grouped heads")  # measured at the lengths below
MASKED_LENGTHS = (128, 512, 2048)

THRESHOLDS = (
    ("length == 512 and dtype == 'float32'", "over_flash <= 1.25 and speed_up >= 2.3"),
    ("length == 2048 and dtype == 'float32' and variant == 'plain'", "speed_up >= 4"),
    ("length == 2048 and dtype == 'float32' and variant == 'causal'", "speed_up >= 5.5"),
    ("length == 2048 and dtype == 'float32'", "over_flash <= 1.2"),
    ("length == 128 and dtype == 'float32'", "speed_up >= 1.7"),
    ("length in [512, 2048] and dtype == 'bfloat16'", "over_flash <= 1.4"),
    ("peak_bytes >= 0", "peak_bytes <= 64e6"),
)
"""Which of our records, and what each of them must reach."""


class _Case:
    """Tensors of one comparison, and its call."""

    def __init__(self, length: int, variant: str, dtype: str, device: str) -> None:
        heads = HEADS // 4 if variant == "grouped heads" else HEADS
        batch = max(1, TOKENS // length)
        self.inputs = [
            torch.randn(batch, h, length, WIDTH, device=device, dtype=DTYPES[dtype])
            for h in (HEADS, heads, heads)
        ]
        for tensor in self.inputs:
            tensor.requires_grad_()
        self.gradient = torch.ones_like(self.inputs[0])
        self.arguments: dict[str, Any] = {}
        if variant == "causal":
            self.arguments["is_causal"] = True
        elif variant == "grouped heads":
            self.arguments["enable_gqa"] = True
        elif variant == "key padding":
            kept = torch.arange(length, device=device) < length * 7 // 8
            self.arguments["attn_mask"] = kept.expand(batch, 1, 1, length)

    def step(self, name: str) -> Tensor:
        functions = dropout_ext.functional if name == OURS else nn.functional
        p = 0.0 if name == WITHOUT else P
        output: Tensor = functions.scaled_dot_product_attention(
            *self.inputs, dropout_p=p, **self.arguments
        )
        output.backward(self.gradient)
        return output

    def clear(self) -> None:
        for tensor in self.inputs:
            tensor.grad = None


def _jobs(length: int, variant: str, dtype: str, device: str) -> list[Job]:
    case = _Case(length, variant, dtype, device)
    batch = case.gradient.size(0)

    def make(name: str) -> Run | None:
        if name == TORCH and length > LONGEST:
            return None

        def run(calls: int) -> None:
            for _ in range(calls):
                case.step(name)
                case.clear()

        return run

    labels: Record = {"length": length, "batch": batch, "variant": variant, "dtype": dtype}
    return [
        Job({"candidate": name, **labels}, lambda name=name: make(name))  # type: ignore[misc]
        for name in CANDIDATES
    ]


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(field))
    return int(line.split()[1]) << 10


def _peak(name: str, length: int, variant: str, dtype: str, threads: int) -> int:
    """Bytes by which the memory of this process grew, beyond the output and the gradients."""
    torch.set_num_threads(threads)
    _Case(64, variant, dtype, "cpu").step(name)
    case = _Case(length, variant, dtype, "cpu")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = _resident("VmRSS")
    output = case.step(name)
    results = [output, *(tensor.grad for tensor in case.inputs if tensor.grad is not None)]
    return _resident("VmHWM") - before - sum(t.untyped_storage().nbytes() for t in results)


def _peaks(dtypes: Iterable[str]) -> list[Record]:
    threads, found = torch.get_num_threads(), []
    for dtype in dtypes:
        for variant in ("plain", "causal"):
            for name in (OURS, WITHOUT):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    size = pool.apply(_peak, (name, PEAK_LENGTH, variant, dtype, threads))
                labels = {"length": PEAK_LENGTH, "variant": variant, "dtype": dtype}
                found.append({"candidate": name, **labels, "peak_bytes": size})
    return found


def _frame(records: Sequence[Record]) -> pd.DataFrame:
    """Our records, with the time of the others beside them."""

    def place(name: str, r: Record) -> tuple[Any, ...]:
        return name, r["length"], r["variant"], r["dtype"]

    known = {place(r["candidate"], r): r for r in records}
    rows = []
    for r in records:
        if r["candidate"] == OURS:
            flash, other = known[place(WITHOUT, r)], known.get(place(TORCH, r))
            over = {"over_flash": r["seconds"] / flash["seconds"]}
            rows.append(
                {**r, **over, "flash": speed(flash), "other": speed(other) if other else "-"}
            )
    return as_frame(rows)


def table(records: Sequence[Record]) -> pd.DataFrame:
    """One line per shape, dtype and variant."""
    frame = _frame(records)
    return as_frame(
        {
            "batch, heads, length": f"{r['batch']}, {HEADS}, {r['length']}",
            "attention": r["variant"],
            "dtype": r["dtype"],
            OURS: speed(r),
            TORCH: r["other"],
            WITHOUT: r["flash"],
            "speed-up": ratio(r["speed_up"]),
            "time over no dropout": ratio(r["over_flash"]),
        }
        for r in frame.to_dict("records")
    )


def peak_table(peaks: Sequence[Record]) -> pd.DataFrame:
    """One line per dtype and variant."""
    frame = as_frame(peaks)
    frame["peak"] = frame["peak_bytes"].map(lambda size: f"{size / 2**20:,.1f} MiB")
    lines = frame.pivot(index=["dtype", "variant"], columns="candidate", values="peak")
    lines = lines[[OURS, WITHOUT]].rename_axis(columns=None).reset_index()
    shown: pd.DataFrame = lines.rename(columns={"variant": "attention"})
    return shown


def judge(records: Sequence[Record], peaks: Sequence[Record]) -> list[dict[str, Any]]:
    """A verdict for each of our records under a threshold."""
    own = as_frame(r for r in peaks if r["candidate"] == OURS)
    frame = pd.concat([_frame(records), own], ignore_index=True)
    frame = frame.reindex(columns=[*{*frame, "peak_bytes"}])
    found: list[dict[str, Any]] = []
    for which, wanted in THRESHOLDS:
        rows = frame.query(which, engine="python")
        if which != "peak_bytes >= 0":
            rows = rows[rows["over_flash"].notna()]
        if rows.empty:
            none = {"measured": "not measured here", "met": None}
            found.append({"threshold": which, "wanted": wanted, "where": "-", **none})
            continue
        for (_, r), met in zip(rows.iterrows(), rows.eval(wanted, engine="python"), strict=True):
            where = f"{r['variant']}, {r['dtype']}, {r['length']:.0f}"
            columns = [c for c in ("over_flash", "speed_up", "peak_bytes") if c in wanted]
            measured = ", ".join(f"{r[c]:.3g}" for c in columns)
            found.append(
                {"threshold": which, "wanted": wanted, "where": where}
                | {"measured": measured, "met": bool(met)}
            )
    return found


def plot(records: Sequence[Record], facts: dict[str, Any], file: Path) -> None:
    """Writes the figure as PNG: times over that of torch without dropout, by length."""
    frame = as_frame(records)
    frame = frame[frame["variant"].isin(("plain", "causal"))]
    dtypes, variants = frame["dtype"].unique(), frame["variant"].unique()
    figure, grid = pyplot.subplots(
        len(dtypes), len(variants), squeeze=False, sharey=True, layout="constrained",
        figsize=(4.6 * len(variants) + 0.4, 3.1 * len(dtypes) + 1.1),
    )  # fmt: skip
    styles = {OURS: STYLES[OURS], TORCH: STYLES[BASELINE], WITHOUT: STYLES[MUL]}
    for row, dtype in zip(grid, dtypes, strict=True):
        for axes, variant in zip(row, variants, strict=True):
            panel = frame[(frame["dtype"] == dtype) & (frame["variant"] == variant)]
            own = {name: group.set_index("length") for name, group in panel.groupby("candidate")}
            flash = own[WITHOUT]["seconds"]
            for name, (colour, line, marker) in styles.items():
                times = own[name]
                least = flash.loc[times.index]
                axes.plot(
                    times.index, times["seconds"] / least, line, color=colour, marker=marker,
                    markersize=4, linewidth=1.6, label=f"{name}, p = {P:g}" if name != WITHOUT
                    else name,
                )  # fmt: skip
                low, high = times["seconds_q1"] / least, times["seconds_q3"] / least
                axes.fill_between(times.index, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log", base=2)
            shown = sorted(panel["length"].unique())
            axes.set_xticks(shown, map(str, shown))
            axes.yaxis.set_major_formatter(lambda y, _: f"{y:g} \N{MULTIPLICATION SIGN}")
            axes.minorticks_off()
            axes.grid(True, color="#dddddd", linewidth=0.6)
            axes.set_axisbelow(True)
            axes.set_title(f"{'causal, ' * (variant == 'causal')}{dtype}", fontsize=10)
        row[0].set_ylabel("time over no dropout")
    for axes in grid[-1]:
        axes.set_xlabel("queries and keys")
    figure.suptitle(
        f"Attention, forward + backward, {HEADS} heads of {WIDTH}\n"
        f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}",
        fontsize=11,
    )
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9)
    figure.savefig(file, dpi=110)
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints tables and verdicts, writes the figures."""
    options = argparse.ArgumentParser(prog="python -m bench.attention", description=__doc__)
    add_options(options)
    options.add_argument(
        "--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32", "bfloat16"]
    )
    options.add_argument("--lengths", nargs="+", type=int, default=LENGTHS)
    options.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    options.add_argument("--seconds", type=float, default=1.0, help="for each candidate")
    options.add_argument("--quick", action="store_true", help="short lengths, no peak memory")
    options.add_argument("--plot", type=Path, metavar="FILE", help="draw the times as PNG")
    chosen = options.parse_args(arguments)
    lengths = [n for n in chosen.lengths if n <= 512] if chosen.quick else chosen.lengths
    report = Report("bench.attention", chosen)
    report.task = {"p": P, "heads": HEADS, "width": WIDTH, "mode": "forward_backward"}
    budget = Budget(chosen.seconds / (4 if chosen.quick else 1), sample_seconds=2e-3)
    for dtype in chosen.dtypes:
        for variant in chosen.variants:
            for length in lengths:
                if variant in MASKED and length not in MASKED_LENGTHS:
                    continue
                jobs = _jobs(length, variant, dtype, chosen.device)
                measure(jobs, chosen.device, budget, report, TORCH)
    if chosen.device == "cpu" and not chosen.quick:
        report.saved = _peaks(chosen.dtypes)
    report.verdicts = judge(report.records, report.saved)
    lines = text(table(report.records))
    if report.saved:
        lines += ["", f"peak memory at 1, {HEADS}, {PEAK_LENGTH}", *text(peak_table(report.saved))]
    report.finish([*lines, *verdict_table(report.verdicts)])
    if chosen.plot:
        plot(report.records, report.facts, chosen.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
