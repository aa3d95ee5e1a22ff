"""``python -m bench.transformer``: what dropout costs in a transformer's training step."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from bench.cases import parse_size
from bench.dtypes import DTYPES
from bench.facts import describe, facts
from bench.load import Load, warning
from bench.output import write_json
from bench.table import align, format_seconds
from bench.transformer.encoder import Shape
from bench.transformer.training import Line, Task, measure

SCHEMA = "dropout_ext.transformer/1"

SHAPES = {
    "cpu": Shape(layers=1, batch=16, sequence=128, width=256, heads=8, feedforward=1024),
    "cuda": Shape(layers=12, batch=16, sequence=512, width=1024, heads=16, feedforward=4096),
}


def _table(lines: Sequence[Line]) -> list[str]:
    head = ["dropout", "step", "range", "tokens/s", "x nn.Dropout", "share of dropout"]
    rows = [[*head, "saved for backward", "peak of a step"]]
    for line in lines:
        ends = (format_seconds(line.seconds_min), format_seconds(line.seconds_max))
        rows.append(
            [
                line.dropout + ", compiled" * line.compiled,
                format_seconds(line.seconds_median),
                " - ".join(ends),
                f"{line.tokens_per_s:,.0f}",
                "-" if line.times_rival is None else f"{line.times_rival:.2f}",
                "-" if line.dropout_share is None else f"{line.dropout_share:.1%}",
                f"{line.saved_bytes / 2**20:,.1f} MiB",
                "-" if line.peak_bytes is None else f"{line.peak_bytes / 2**20:,.1f} MiB",
            ]
        )
    return align(rows)


def _options() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m bench.transformer", description=__doc__)
    add = options.add_argument
    add("--device", choices=("cpu", "cuda"), default="cpu")
    for name in asdict(SHAPES["cpu"]):
        add(f"--{name}", type=parse_size, help=f"CPU {asdict(SHAPES['cpu'])[name]}, CUDA more")
    add("--dtype", choices=tuple(DTYPES), default="float32")
    add("--p", type=float, default=0.1)
    add("--attention-p", type=float, help="dropout inside attention (default: p)")
    add("--compiled", action="store_true", help="also with each layer compiled")
    add("--seconds", type=float, default=2.0, help="seconds for each dropout")
    add("--threads", type=int)
    add("--json", type=Path, metavar="FILE")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the figures."""
    chosen = _options().parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    default = asdict(SHAPES[chosen.device])
    shape = Shape(**{name: getattr(chosen, name) or default[name] for name in default})
    attention_p = chosen.p if chosen.attention_p is None else chosen.attention_p
    dtype, seconds = chosen.dtype, chosen.seconds
    task = Task(shape, chosen.device, dtype, chosen.p, attention_p, chosen.compiled, seconds)
    found = facts(chosen.device, "bench.transformer")
    print("\n".join(describe(found)))
    print(f"encoder: {shape}, {dtype}, p = {chosen.p:g}; forward, loss, backward, AdamW\n")
    load = Load()
    lines = measure(task)
    found["cpu_used_by_others"] = load.of_others()
    print("\n".join([*_table(lines), *warning(found["cpu_used_by_others"])]))
    if chosen.json:
        records = [asdict(line) for line in lines]
        content = {"schema": SCHEMA, "facts": found, "task": asdict(task), "records": records}
        write_json(chosen.json, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
