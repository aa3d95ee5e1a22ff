"""``python -m bench``: measure, print, and write what was asked for."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from bench import table
from bench.bars import verdict_table
from bench.check import check
from bench.facts import describe, facts
from bench.load import Load, warning
from bench.options import parser, plan
from bench.output import write_json
from bench.run import Report, carry_out


def _head(found: dict[str, Any]) -> list[str]:
    caches = "cold: buffers are rotated" if found["gpu"] else "warm where the tensor fits"
    return [
        *describe(found),
        "candidates interleaved in one run; median ± half the interquartile range; "
        f"caches {caches}",
        "G/s: 1e9 elements of the input per second, the passes of a mode together",
    ]


def _tables(report: Report) -> list[str]:
    results = report.results
    return [
        *table.speed_table(results.records),
        *table.layout_table(results.records),
        *table.saved_bytes_table(report.saved),
        *table.failure_lines(results.failures),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 only for a missed bar under ``--strict``."""
    options = parser().parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    chosen = plan(options)
    report = Report(facts(chosen.device, "bench"))
    print("\n".join(_head(report.facts)))
    load, missed = Load(), False
    if options.check_bars:
        verdicts = check(chosen, report)
        missed = any(verdict.met is False for verdict in verdicts)
        report.bars = [asdict(verdict) for verdict in verdicts]
        print("\n".join([*_tables(report), *verdict_table(verdicts)]))
    else:
        carry_out(chosen, report)
        print("\n".join(_tables(report)))
    report.facts["cpu_used_by_others"] = load.of_others()
    print("\n".join(warning(report.facts["cpu_used_by_others"])))
    if options.json:
        write_json(options.json, report.as_json())
    if options.plot:
        from bench.plot import plot

        subject = report.facts["gpu"]["name"] if report.facts["gpu"] else report.facts["cpu"]
        threads = "" if report.facts["gpu"] else f", {report.facts['threads']} threads"
        plot(report.results.records, f"{subject}{threads}, torch {torch.__version__}", options.plot)
    return int(missed and options.strict)


if __name__ == "__main__":
    sys.exit(main())
