"""``python -m bench.publish``: rewrites the published tables from ``bench/results/*.json``.

A table stands in README.md or docs/*.md between ``<!-- table: NAME -->`` and ``<!-- /table -->``.
``--check`` changes nothing, prints the names of the tables that differ, and returns 1 if any does.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import pandas as pd

from bench import attention, structured, transformer
from bench.candidates import BASELINE, OURS
from bench.cases import format_size
from bench.extension import CHECKOUT
from bench.options import sizes
from bench.report import SCHEMA
from bench.tables import as_frame, layout_table, markdown, ratio, saved_table, seconds
from bench.training.summary import score_table

_REGION = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- /table -->)", re.DOTALL)


@cache
def results(name: str) -> dict[str, Any]:
    """The committed results of this name."""
    file = CHECKOUT / "bench" / "results" / f"{name}.json"
    content: dict[str, Any] = json.loads(file.read_text())
    if content["schema"] != SCHEMA:
        raise SystemExit(f"{name}.json: schema must be {SCHEMA}, got {content['schema']}")
    return content


def _ours(**labels: Any) -> list[dict[str, Any]]:
    """Our records with these labels, of the speed section unless they say otherwise."""
    wanted = {"candidate": OURS, "section": "speed", **labels}
    return [r for r in results("cpu")["records"] if wanted.items() <= r.items()]


def _headline() -> Iterator[dict[str, str]]:
    """The default training call, and in place forward beside it."""
    for dtype in ("float32", "bfloat16"):
        for r in _ours(mode="forward_backward", dtype=dtype):
            if r["numel"] not in sizes("64K 1M 16M 64M"):
                continue
            (in_place,) = _ours(mode="inplace", dtype=dtype, numel=r["numel"])
            yield {
                "dtype": dtype,
                "elements": format_size(r["numel"]),
                f"{OURS}, forward + backward": seconds(r["seconds"]),
                BASELINE: seconds(r["seconds"] * r["speed_up"]),
                "speed-up": ratio(r["speed_up"]),
                "time over torch.mul": ratio(r["time_over_mul"]),
                f"{OURS}, forward in place": seconds(in_place["seconds"]),
                "speed-up in place": ratio(in_place["speed_up"]),
            }


def _small() -> pd.DataFrame:
    """What a call costs where there is next to nothing to do, over what nn.Dropout's costs."""
    shown = [r for r in _ours(dtype="float32") if r["numel"] <= 1024 and r["mode"] != "inplace"]
    frame = as_frame(shown)
    frame["elements"] = frame["numel"].map(format_size)
    frame["ratio"] = (1 / frame["speed_up"]).map(ratio)
    frame["mode"] += f": time over {BASELINE}"
    table = frame.pivot(index=["numel", "elements"], columns="mode", values="ratio")
    small: pd.DataFrame = table.reset_index("numel", drop=True).reset_index()
    return small


def _machine() -> Iterator[dict[str, str]]:
    """What the results were measured on."""
    for name in ("cpu", "structured", "attention", "transformer", "training"):
        facts = results(name)["facts"]
        yield {
            "results": f"`bench/results/{name}.json`",
            "CPU": facts["cpu"],
            "SIMD path": facts["dropout_ext"]["cpu_path"],
            "threads": str(facts["threads"]),
            "torch": facts["torch"],
            "date": facts["date"],
            "CPU used by others": f"{facts['cpu_used_by_others']:.0%}",
        }


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "headline": lambda: as_frame(_headline()),
    "small": _small,
    "layouts": lambda: layout_table(_ours(section="layouts")),
    "saved": lambda: saved_table(results("cpu")["saved"]),
    "attention": lambda: attention.table(results("attention")["records"]),
    "attention-peak": lambda: attention.peak_table(results("attention")["saved"]),
    "structured": lambda: structured.table(results("structured")["records"]),
    "transformer": lambda: transformer.table(results("transformer")["records"]),
    "training": lambda: score_table(as_frame(results("training")["records"])),
    "machine": lambda: as_frame(_machine()),
}


def renew(page: str) -> str:
    """The page with its tables made anew."""

    def table(region: re.Match[str]) -> str:
        head, name, end = region.groups()
        if name not in TABLES:
            raise SystemExit(f"table {name!r} is unknown; there are {', '.join(TABLES)}")
        return head + "\n".join([*markdown(TABLES[name]()), end])

    return _REGION.sub(table, page)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 if ``--check`` finds a table that differs."""
    options = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    options.add_argument("--check", action="store_true", help="change nothing")
    chosen = options.parse_args(arguments)
    status = 0
    for file in (CHECKOUT / "README.md", *sorted((CHECKOUT / "docs").glob("*.md"))):
        page = file.read_text()
        for region in _REGION.finditer(page):
            if renew(region[0]) != region[0]:
                print(f"{file.relative_to(CHECKOUT)}: {region[2]}")
                status = int(chosen.check)
        if not chosen.check:
            file.write_text(renew(page))
    return status


if __name__ == "__main__":
    sys.exit(main())
