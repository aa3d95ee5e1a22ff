"""``python -m bench.structured``: shared masks and the family, beside torch's and ``torch.mul``.

Forward and backward of each form, of torch's own module (or of what is usually written where torch
has none), and of ``torch.mul`` by a scalar, which reads and writes as much. Interleaved.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from bench.candidates import MUL, OURS
from bench.cases import DTYPES
from bench.extension import dropout_ext
from bench.loops import Operation, loop
from bench.report import Report, add_options
from bench.runner import Job, Record, measure
from bench.saved import nbytes, saved_tensors
from bench.tables import as_frame, ratio, speed, text
from bench.timing import Budget

P = 0.1
TORCH = "torch"
Make = Callable[[float], Operation]


def _product(*mask_shape: int) -> Make:
    """What is usually written: a small random mask, scaled, and broadcast by the product."""
    return lambda p: lambda x: x * x.new_empty(mask_shape).bernoulli_(1 - p).div_(1 - p)


def _shared(*dims: int) -> Make:
    return lambda p: dropout_ext.Dropout(p, broadcast_dims=dims)


_IMAGE = (64, 256, 32, 32)
FORMS: dict[str, tuple[tuple[int, ...], Make, Make]] = {
    "Dropout1d": ((64, 256, 1024), dropout_ext.Dropout1d, nn.Dropout1d),
    "Dropout2d": (_IMAGE, dropout_ext.Dropout2d, nn.Dropout2d),
    "Dropout3d": ((8, 64, 16, 32, 32), dropout_ext.Dropout3d, nn.Dropout3d),
    "DropPath": ((256, 197, 768), dropout_ext.DropPath, _product(256, 1, 1)),
    "time-locked": ((64, 128, 512), _shared(1), _product(64, 1, 512)),
    "node-wise": ((4096, 1024), _shared(0), _product(1, 1024)),
    "last shared": ((4096, 16, 64), _shared(2), _product(4096, 16, 1)),
    "narrow, last shared": ((65536, 8, 8), _shared(2), _product(65536, 8, 1)),
    "narrow, middle shared": ((4096, 128, 8), _shared(1), _product(4096, 1, 8)),
    "AlphaDropout": ((1 << 20,), dropout_ext.AlphaDropout, nn.AlphaDropout),
    "FeatureAlphaDropout": (_IMAGE, dropout_ext.FeatureAlphaDropout, nn.FeatureAlphaDropout),
}
"""The shape that each form is measured on, ours, and the baseline."""


def _jobs(form: str, device: str, dtype: str) -> list[Job]:
    shape, ours, baseline = FORMS[form]
    x = torch.randn(shape, device=device, dtype=DTYPES[dtype], requires_grad=True)
    jobs = []
    operations = {OURS: ours(P), TORCH: baseline(P), MUL: lambda t: torch.mul(t, 2.0)}
    for name, operation in operations.items():
        labels: Record = {"candidate": name, "form": form, "shape": shape, "dtype": dtype}
        labels["saved_bytes"] = nbytes(saved_tensors(operation, x)[1])
        make = partial(loop, operation, "forward_backward", [x], [torch.ones_like(x)])
        jobs.append(Job(labels, make))
    return jobs


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One line per form: ours, against its baseline and torch.mul."""
    return as_frame(
        {
            "forward + backward of": r["form"],
            "shape": "x".join(map(str, r["shape"])),
            "dtype": r["dtype"],
            "time": speed(r),
            "speed-up": ratio(r["speed_up"]),
            "time over torch.mul": ratio(r["time_over_mul"]),
            "saved": f"{r['saved_bytes']} B",
        }
        for r in records
        if r["candidate"] == OURS
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the figures."""
    options = argparse.ArgumentParser(prog="python -m bench.structured", description=__doc__)
    add_options(options)
    options.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32"])
    options.add_argument("--forms", nargs="+", choices=tuple(FORMS), default=tuple(FORMS))
    options.add_argument("--seconds", type=float, default=0.6, help="for each candidate")
    chosen = options.parse_args(arguments)
    report = Report("bench.structured", chosen)
    report.task = {"mode": "forward_backward", "p": P}
    print(f"forward and backward, p = {P:g}\n")
    budget = Budget(chosen.seconds, sample_seconds=2e-3, min_samples=5)
    for form in tqdm(chosen.forms, leave=False, disable=None):
        for dtype in chosen.dtypes:
            measure(_jobs(form, chosen.device, dtype), chosen.device, budget, report, TORCH)
    report.finish(text(table(report.records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
