"""``python -m bench.transformer``: what dropout costs in a transformer's training step.

A post-norm encoder whose three dropouts per layer, and that of attention, are exchanged. The step:
forward, mean squared error, backward, AdamW.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from bench.candidates import BASELINE, OURS, allow_recompilation, hand_written
from bench.cases import DTYPES
from bench.extension import dropout_ext
from bench.report import Report, add_options
from bench.runner import Job, Record, measure
from bench.saved import nbytes, saved_tensors
from bench.tables import as_frame, ratio, speed, text
from bench.timing import Budget, Run

WITHOUT, CONVERTED = "no dropout", "convert_dropout"
NOT_AT_ALL = f"{WITHOUT}, attention neither"


@dataclass(frozen=True)
class Task:
    """The model, its input, and its probabilities to drop."""

    layers: int = 1
    batch: int = 16
    sequence: int = 128
    width: int = 256
    heads: int = 8
    feedforward: int = 1024
    dtype: str = "float32"
    p: float = 0.1
    attention_p: float = 0.1


DEFAULTS = {
    "cpu": Task(),
    "cuda": Task(layers=12, batch=16, sequence=512, width=1024, heads=16, feedforward=4096),
}


class _HandWritten(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return hand_written(x, self.p)


PEERS: dict[str, Callable[[float], nn.Module]] = {
    WITHOUT: lambda p: nn.Identity(),
    BASELINE: nn.Dropout,
    OURS: dropout_ext.Dropout,
    "hand-written": _HandWritten,
    CONVERTED: nn.Dropout,
    NOT_AT_ALL: lambda p: nn.Identity(),
}
"""What stands in the place of the three dropouts, by name."""


def encoder(task: Task, device: str, name: str) -> nn.TransformerEncoder:
    """In training mode; the dropout of attention is torch's unless the name says otherwise."""
    torch.manual_seed(0)
    attention_p = 0.0 if name == NOT_AT_ALL else task.attention_p
    layer = nn.TransformerEncoderLayer(
        task.width, task.heads, task.feedforward, attention_p, batch_first=True
    )
    for place in ("dropout", "dropout1", "dropout2"):
        setattr(layer, place, PEERS[name](task.p))
    model = nn.TransformerEncoder(layer, task.layers, enable_nested_tensor=False)
    if name == CONVERTED:
        dropout_ext.convert_dropout(model)
    return model.to(device=device, dtype=DTYPES[task.dtype]).train()


def _job(task: Task, device: str, name: str, compiled: bool) -> Job:
    """The training step, and as labels what it keeps for backward and its peak of memory."""
    labels: Record = {"candidate": name, "layers": task.layers, "compiled": compiled}

    def make() -> Run:
        model = encoder(task, device, name)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        size, dtype = (task.batch, task.sequence, task.width), DTYPES[task.dtype]
        # As the output of an embedding would, the input wants a gradient: all layers are alike.
        x = torch.randn(size, device=device, dtype=dtype, requires_grad=True)
        target = torch.randn(size, device=device, dtype=dtype)
        for layer in model.layers if compiled else ():
            layer.compile()

        def loss(x: Tensor) -> Tensor:
            return nn.functional.mse_loss(model(x), target)

        def step(calls: int) -> None:
            for _ in range(calls):
                loss(x).backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                x.grad = None

        step(2)  # so that what has to be compiled is
        labels["saved_bytes"] = nbytes(saved_tensors(loss, x)[1], model.parameters())
        labels["peak_bytes"] = None
        if x.is_cuda:  # the most memory in a step beyond what lies there between steps
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            step(1)
            labels["peak_bytes"] = torch.cuda.max_memory_allocated() - before
        return step

    return Job(labels, make)


def table(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One line per dropout; its share is what disappears when the three dropouts of a layer do."""
    without = [r for r in records if r["candidate"] == WITHOUT]
    least = {(r["layers"], r["compiled"]): r["seconds"] for r in without}
    return as_frame(
        {
            "layers": str(r["layers"]) + ", compiled" * r["compiled"],
            "dropout": r["candidate"],
            "step": speed(r),
            "speed-up": ratio(r["speed_up"]),
            "share of dropout": f"{1 - least[r['layers'], r['compiled']] / r['seconds']:.1%}",
            "saved for backward": f"{r['saved_bytes'] / 2**20:,.1f} MiB",
            "peak": f"{r['peak_bytes'] / 2**20:,.1f} MiB" if r["peak_bytes"] else "-",
        }
        for r in records
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the figures."""
    options = argparse.ArgumentParser(prog="python -m bench.transformer", description=__doc__)
    add_options(options)
    for name, value in asdict(Task()).items():
        flag, choices = f"--{name.replace('_', '-')}", tuple(DTYPES) if name == "dtype" else None
        options.add_argument(flag, type=type(value), choices=choices, help=f"on the CPU {value}")
    options.add_argument("--compiled", action="store_true", help="also with each layer compiled")
    options.add_argument("--seconds", type=float, default=2.0, help="seconds for each dropout")
    chosen = options.parse_args(arguments)
    chosen.attention_p = chosen.p if chosen.attention_p is None else chosen.attention_p
    given = {name: getattr(chosen, name) for name in asdict(Task())}
    task = replace(DEFAULTS[chosen.device], **{k: v for k, v in given.items() if v is not None})
    report = Report("bench.transformer", chosen)
    report.task = asdict(task)
    print(f"{task}: forward, loss, backward, AdamW\n")
    allow_recompilation()
    for compiled in (False, True)[: 1 + chosen.compiled]:
        jobs = [_job(task, chosen.device, name, compiled) for name in PEERS]
        measure(jobs, chosen.device, Budget(chosen.seconds), report)
    report.finish(text(table(report.records)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
