"""``python -m bench.structured``: shared masks and the family, beside torch's and ``torch.mul``.

Forward and backward of each form, of torch's own module (or of what is usually written where torch
has none), and of ``torch.mul`` by a scalar, which reads and writes as much. Interleaved.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import torch
from torch import nn
from tqdm import tqdm

from bench.candidates import MUL, SUBJECT
from bench.dtypes import DTYPES
from bench.extension import dropout_ext
from bench.facts import describe, facts
from bench.load import Load, warning
from bench.output import write_json
from bench.saved import saved_tensors
from bench.steps import Operation, forward_backward_loop
from bench.table import align, format_seconds
from bench.timing import Budget, EventClock, Trial, WallClock, interleave

SCHEMA = "dropout_ext.structured/1"
P = 0.1


@dataclass(frozen=True)
class Form:
    """A kind of dropout, the shape it is measured on, and who else does it."""

    name: str
    shape: tuple[int, ...]
    ours: Callable[[float], nn.Module]
    theirs: Callable[[float], Operation]


def _masked(*mask_shape: int) -> Callable[[float], Operation]:
    """What is usually written: a small random mask, scaled, and broadcast by the product."""

    def make(p: float) -> Operation:
        return lambda x: x * x.new_empty(mask_shape).bernoulli_(1 - p).div_(1 - p)

    return make


def _shared(*dims: int) -> Callable[[float], nn.Module]:
    return lambda p: dropout_ext.Dropout(p, broadcast_dims=dims)


FORMS = (
    Form("Dropout1d", (64, 256, 1024), dropout_ext.Dropout1d, nn.Dropout1d),
    Form("Dropout2d", (64, 256, 32, 32), dropout_ext.Dropout2d, nn.Dropout2d),
    Form("Dropout3d", (8, 64, 16, 32, 32), dropout_ext.Dropout3d, nn.Dropout3d),
    Form("DropPath", (256, 197, 768), dropout_ext.DropPath, _masked(256, 1, 1)),
    Form("time-locked", (64, 128, 512), _shared(1), _masked(64, 1, 512)),
    Form("node-wise", (4096, 1024), _shared(0), _masked(1, 1024)),
    Form("last shared", (4096, 16, 64), _shared(2), _masked(4096, 16, 1)),
    Form("narrow, last shared", (65536, 8, 8), _shared(2), _masked(65536, 8, 1)),
    Form("narrow, middle shared", (4096, 128, 8), _shared(1), _masked(4096, 1, 8)),
    Form("AlphaDropout", (1 << 20,), dropout_ext.AlphaDropout, nn.AlphaDropout),
    Form(
        "FeatureAlphaDropout", (64, 256, 32, 32), dropout_ext.FeatureAlphaDropout,
        nn.FeatureAlphaDropout,
    ),
)  # fmt: skip


@dataclass
class Line:
    """Forward and backward of one form. Seconds are medians, per call."""

    form: str
    shape: tuple[int, ...]
    dtype: str
    seconds: float
    spread: float
    """Half the interquartile range over the median."""
    theirs_seconds: float
    mul_seconds: float
    saved_bytes: int


def measure(form: Form, device: str, dtype: str, seconds: float) -> Line:
    """Times ours, theirs and the product in turn."""
    x = torch.randn(form.shape, device=device, dtype=DTYPES[dtype], requires_grad=True)
    gradient = torch.randn_like(x)
    operations: dict[str, Operation] = {
        SUBJECT: form.ours(P),
        "theirs": form.theirs(P),
        MUL: lambda t: torch.mul(t, 2.0),
    }
    clock = EventClock() if device == "cuda" else WallClock()
    trials = {
        name: Trial(forward_backward_loop(operation, [x], [gradient]), clock)
        for name, operation in operations.items()
    }
    interleave(list(trials.values()), Budget(seconds, sample_seconds=2e-3, min_samples=5))
    middle = {name: median(trial.seconds) for name, trial in trials.items()}
    own = sorted(trials[SUBJECT].seconds)
    spread = (own[len(own) * 3 // 4] - own[len(own) // 4]) / 2 / middle[SUBJECT]
    _, kept = saved_tensors(lambda: operations[SUBJECT](x))
    return Line(
        form=form.name,
        shape=form.shape,
        dtype=dtype,
        seconds=middle[SUBJECT],
        spread=spread,
        theirs_seconds=middle["theirs"],
        mul_seconds=middle[MUL],
        saved_bytes=sum(tensor.untyped_storage().nbytes() for tensor in kept),
    )


def _table(lines: Sequence[Line]) -> list[str]:
    rows = [["form", "shape", "dtype", "time", "x theirs", "time of mul", "saved"]]
    for line in lines:
        rows.append(
            [
                line.form,
                "x".join(map(str, line.shape)),
                line.dtype,
                f"{format_seconds(line.seconds)} ±{line.spread:.0%}",
                f"{line.theirs_seconds / line.seconds:.2f}",
                f"{line.seconds / line.mul_seconds:.2f}",
                f"{line.saved_bytes} B",
            ]
        )
    return align(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the figures."""
    options = argparse.ArgumentParser(prog="python -m bench.structured", description=__doc__)
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=["float32"])
    options.add_argument("--forms", nargs="+", choices=[form.name for form in FORMS])
    options.add_argument("--seconds", type=float, default=0.6, help="for each candidate")
    options.add_argument("--threads", type=int)
    options.add_argument("--json", type=Path, metavar="FILE")
    chosen = options.parse_args(arguments)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    found = facts(chosen.device, "bench.structured")
    print("\n".join(describe(found)))
    print(f"forward and backward, p = {P:g}\n")
    load = Load()
    cells = [
        (form, dtype)
        for form in FORMS
        if not chosen.forms or form.name in chosen.forms
        for dtype in chosen.dtypes
    ]
    progress = tqdm(cells, leave=False, disable=None)
    lines = [measure(form, chosen.device, dtype, chosen.seconds) for form, dtype in progress]
    found["cpu_used_by_others"] = load.of_others()
    print("\n".join([*_table(lines), *warning(found["cpu_used_by_others"])]))
    if chosen.json:
        records = [asdict(line) for line in lines]
        write_json(chosen.json, {"schema": SCHEMA, "facts": found, "records": records})
    return 0


if __name__ == "__main__":
    sys.exit(main())
