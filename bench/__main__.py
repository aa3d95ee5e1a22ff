"""``python -m bench``: measure, print, and write what was asked for."""

import sys
from collections.abc import Sequence

from bench.elementwise import carry_out
from bench.options import parser, plan
from bench.report import Report
from bench.tables import as_frame, layout_table, saved_table, speed_tables, text
from bench.thresholds import check, verdict_table


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 only for a missed threshold under ``--strict``."""
    options = parser().parse_args(arguments)
    report = Report("bench", options)
    caches = "cold: buffers are rotated" if report.facts["gpu"] else "warm where the tensor fits"
    print(f"candidates interleaved in one run; median ± half the interquartile range; {caches}")
    print("G/s: 1e9 elements of the input per second, the passes of a mode together")
    if options.check_thresholds:
        report.verdicts = check(plan(options), report)
    else:
        carry_out(plan(options), report)
    lines = speed_tables(report.records)
    layouts, saved = layout_table(report.records), saved_table(report.saved)
    lines += [] if layouts.empty else ["", "layouts: time over contiguous", *text(layouts)]
    lines += [] if saved.empty else ["", "bytes saved for backward", *text(saved)]
    report.finish([*lines, *verdict_table(report.verdicts)])
    if options.plot:
        from bench.plot import plot

        plot(as_frame(report.records), report.facts, options.plot)
    missed = any(verdict["met"] is False for verdict in report.verdicts)
    return int(missed and options.strict)


if __name__ == "__main__":
    sys.exit(main())
