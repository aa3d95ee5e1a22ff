"""``python -m bench.audit``: measure both implementations, print the table, write the figures."""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]

from bench.audit.independence import independence
from bench.audit.sameness import sameness
from bench.audit.scale import scale
from bench.audit.specials import specials
from bench.audit.subjects import SUBJECTS, Measure, Observation, Setting, Subject
from bench.audit.usage import usage
from bench.cases import LAYOUT_MULTIPLE, parse_size
from bench.facts import describe, facts
from bench.output import brief, write_json
from bench.table import align

SCHEMA = "dropout_ext.audit/1"

SECTIONS: dict[str, Measure] = {
    "scale and mean": scale,
    "Inf, NaN and signs": specials,
    "same seed, same mask?": sameness,
    "consecutive calls": independence,
    "memory, compiler, generator": usage,
}


def _observe(measure: Measure, subject: Subject, setting: Setting) -> dict[str, Observation]:
    """All properties of a section. What stops the section is itself an observation."""
    found: dict[str, Observation] = {}
    measured: Iterator[tuple[str, Observation]] = measure(subject, setting)
    try:
        found.update(measured)
    except Exception as error:  # a subject that fails is reported, and the other still measured
        found["section ended early"] = Observation(brief(error), {"error": brief(error)})
    return found


def audit(setting: Setting) -> list[dict[str, Any]]:
    """One finding per property: section, property, and an observation under each name."""
    findings = []
    with tqdm(SECTIONS.items(), unit="section", leave=False, disable=None) as progress:
        for section, measure in progress:
            progress.set_description(section)
            seen = {subject.name: _observe(measure, subject, setting) for subject in SUBJECTS}
            for name in dict.fromkeys(name for found in seen.values() for name in found):
                observations = {
                    subject: asdict(found[name]) if name in found else None
                    for subject, found in seen.items()
                }
                findings.append({"section": section, "property": name, **observations})
    return findings


def _table(findings: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for section in SECTIONS:
        rows = [[section, *(subject.name for subject in SUBJECTS)]]
        for finding in findings:
            if finding["section"] == section:
                cells = [finding[subject.name] for subject in SUBJECTS]
                texts = [cell["text"] if cell else "-" for cell in cells]
                rows.append([finding["property"], *texts])
        lines += ["", *align(rows)]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Always 0: an audit reports, it does not judge."""
    options = argparse.ArgumentParser(prog="python -m bench.audit", description=__doc__)
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--numel", type=parse_size, default=1 << 22, help="multiple of 64K")
    options.add_argument("--json", type=Path, metavar="FILE")
    chosen = options.parse_args(arguments)
    if chosen.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda: this torch sees no CUDA device")
    if chosen.numel % LAYOUT_MULTIPLE:
        options.error(f"--numel must be a multiple of {LAYOUT_MULTIPLE}, got {chosen.numel}")
    found = facts(chosen.device, "bench.audit")
    print("\n".join(describe(found)))
    findings = audit(Setting(chosen.device, chosen.numel))
    print("\n".join(_table(findings)))
    if chosen.json:
        write_json(chosen.json, {"schema": SCHEMA, "facts": found, "findings": findings})
    return 0


if __name__ == "__main__":
    sys.exit(main())
