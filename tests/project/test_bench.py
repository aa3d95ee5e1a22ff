"""The benchmark's own parts: published tables, thresholds, the runner.

Catches: a published figure that is not the measured one; a threshold that every record meets, or
that no record can fall under; a ratio the wrong way up; one failing candidate that ends a run.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cpuinfo", reason="needs the packages of the extra bench")
pytest.importorskip("pandas", reason="needs the packages of the extra bench")

from bench import attention, publish, runner, thresholds
from bench.report import Report
from bench.timing import Budget

CHECKOUT = publish.CHECKOUT


def test_published_tables_are_the_measured_ones(capsys: pytest.CaptureFixture[str]) -> None:
    status = publish.main(["--check"])
    assert status == 0, f"run python -m bench.publish: {capsys.readouterr().out}"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """README.md of a checkout that has nothing else but the results."""
    shutil.copytree(CHECKOUT / "bench" / "results", tmp_path / "bench" / "results")
    monkeypatch.setattr(publish, "CHECKOUT", tmp_path)
    publish.results.cache_clear()
    yield tmp_path / "README.md"
    publish.results.cache_clear()


@pytest.mark.parametrize("name", publish.TABLES)
def test_a_changed_table_is_found_and_mended(
    name: str, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page.write_text(f"Before.\n<!-- table: {name} -->\n| 1 |\n<!-- /table -->\nAfter.\n")
    assert publish.main(["--check"]) == 1
    assert capsys.readouterr().out == f"README.md: {name}\n"
    assert "| 1 |" in page.read_text()
    assert publish.main([]) == 0
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert len(lines) > 6 and len({line.count("|") for line in lines[2:-2]}) == 1
    assert publish.main(["--check"]) == 0


def test_an_unknown_table_is_an_error(page: Path) -> None:
    page.write_text("<!-- table: nothing -->\n<!-- /table -->\n")
    with pytest.raises(SystemExit, match="nothing"):
        publish.main(["--check"])


def test_a_changed_result_is_found(page: Path) -> None:
    page.write_text("<!-- table: saved -->\n<!-- /table -->\n")
    publish.main([])
    file = page.parent / "bench" / "results" / "cpu.json"
    content = json.loads(file.read_text())
    content["saved"][0]["saved_bytes"] += 1
    file.write_text(json.dumps(content))
    publish.results.cache_clear()
    assert publish.main(["--check"]) == 1


@pytest.fixture(scope="module")
def empty() -> Report:
    """Made once: asking for the processor takes a second."""
    return Report("bench", argparse.Namespace(device="cpu", threads=None, json=None))


@pytest.fixture
def report(empty: Report) -> Report:
    empty.records, empty.saved, empty.failures = [], [], []
    return empty


def record(**changes: Any) -> dict[str, Any]:
    """A record of ours on which no threshold looks with disfavour."""
    return {
        **{"candidate": "dropout_ext", "section": "speed", "mode": "inplace", "dtype": "float32"},
        **{"numel": 1 << 20, "p": 0.1, "layout": "contiguous", "cpu_path": "avx2"},
        **{"timer": "eager", "seconds": 1.0, "speed_up": 100.0, "time_over_mul": 0.5},
        **{"time_over_copy": 0.5, "time_over_contiguous": 1.0, **changes},
    }


SAVED = {"candidate": "dropout_ext", "dtype": "float32", "numel": 1, "keeps_input": False}
LARGE, HUGE = 1 << 24, 1 << 26
SLOWER = {"time_over_mul": 2.0}
LAYOUT = {"section": "layouts", "layout": "sliced"}


@pytest.mark.parametrize(
    ("device", "mode", "numel", "column", "met", "missed", "others"),
    [
        ("cpu", "inplace", 1 << 20, "speed_up", 40.1, 39.9, {"cpu_path": "avx512"}),
        ("cpu", "inplace", 1 << 20, "speed_up", 20.1, 19.9, {"cpu_path": "avx2"}),
        ("cpu", "inplace", 1 << 20, "speed_up", 2.6, 2.4, {"cpu_path": "scalar"}),
        ("cpu", "forward", 1 << 20, "speed_up", 40.1, 39.9, SLOWER),
        ("cpu", "forward", 1 << 20, "time_over_mul", 1.1, 1.2, {"speed_up": 2.0}),
        ("cpu", "forward_backward", 1 << 20, "speed_up", 25.1, 24.9, SLOWER),
        ("cpu", "forward_backward", LARGE, "time_over_mul", 1.1, 1.2, {}),
        ("cpu", "inplace", LARGE, "time_over_copy", 0.9, 1.1, {}),
        ("cpu", "forward_grad", 16, "speed_up", 1.7, 1.6, {}),
        ("cpu", "forward_backward", 1, "speed_up", 1.3, 1.2, {}),
        ("cpu", "forward", LARGE, "time_over_contiguous", 1.9, 2.1, LAYOUT),
        ("cuda", "backward", HUGE, "time_over_copy", 1.0, 1.1, {}),
        ("cuda", "forward_backward", HUGE, "speed_up", 1.3, 1.2, {"dtype": "bfloat16"}),
        ("cuda", "forward", 1 << 10, "speed_up", 0.99, 0.97, {}),
        ("cuda", "forward", HUGE, "time_over_copy", 1.1, 1.2, LAYOUT),
    ],
)
@pytest.mark.thorough
def test_thresholds(
    device: str,
    mode: str,
    numel: int,
    column: str,
    met: float,
    missed: float,
    others: dict[str, Any],
    report: Report,
) -> None:
    path = str(others.get("cpu_path", "avx2"))
    for value, expected in ((met, True), (missed, False)):
        report.records = [record(mode=mode, numel=numel, **{column: value}, **others)]
        judged = thresholds.judge(device, report, path)
        found = [verdict["met"] for verdict in judged if verdict["met"] is not None]
        assert found and all(found) is expected


@pytest.mark.parametrize(("size", "whole", "met"), [(16, 0, True), (17, 0, False), (16, 1, False)])
def test_threshold_of_saved_bytes(size: int, whole: bool, met: bool, report: Report) -> None:
    report.records = [record()]
    report.saved = [{**SAVED, "saved_bytes": size, "keeps_input": bool(whole)}]
    (verdict,) = (
        v for v in thresholds.judge("cpu", report, "avx2") if v["threshold"] == "saved_bytes >= 0"
    )
    assert verdict["met"] is met


@pytest.mark.parametrize(
    ("length", "dtype", "ours", "met"),
    [(512, "float32", 1.0, True), (512, "float32", 1.3, False), (2048, "bfloat16", 1.5, False)],
)
def test_thresholds_of_attention(length: int, dtype: str, ours: float, met: bool) -> None:
    """Torch's attention takes a second without dropout, and 4 seconds with it."""
    seconds = {attention.OURS: ours, attention.TORCH: 4.0, attention.WITHOUT: 1.0}
    records = [
        {"candidate": name, "length": length, "variant": "plain", "dtype": dtype, "timer": "eager"}
        | dict.fromkeys(("seconds", "seconds_q1", "seconds_q3"), time)
        for name, time in seconds.items()
    ]
    runner.relate(records, attention.TORCH)
    verdicts = attention.judge(records, [{**records[0], "peak_bytes": 1e9}])
    found = [v["met"] for v in verdicts if v["met"] is not None]
    assert found.pop() is False and len(found) > 0 and all(found) is met


@pytest.mark.thorough
def test_a_quick_run_of_attention(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], set_threads: Any
) -> None:
    set_threads(1)
    files = [str(tmp_path / name) for name in ("out.json", "out.png")]
    options = ["--quick", "--lengths", "64", "--variants", "plain", "causal", "--seconds", "0.01"]
    assert attention.main([*options, "--json", files[0], "--plot", files[1]]) == 0
    content = json.loads(Path(files[0]).read_text())
    assert len(content["records"]) == 2 * 2 * 3 and not content["failures"]
    assert Path(files[1]).stat().st_size > 10_000
    assert "32, 8, 64" in capsys.readouterr().out


@pytest.mark.thorough
def test_ratios_and_failures(report: Report) -> None:
    """A candidate that raises is reported; the others are timed and compared."""

    def spin(turns: int) -> Any:
        def run(calls: int) -> None:
            for _ in range(calls * turns):
                sum(range(100))

        return lambda: run

    def fails() -> Any:
        raise RuntimeError("no such thing in /some/folder/file.py")

    jobs = [
        runner.Job({"candidate": "dropout_ext"}, spin(1)),
        runner.Job({"candidate": "nn.Dropout"}, spin(40)),
        runner.Job({"candidate": "hand-written"}, fails),
        runner.Job({"candidate": "torch.mul"}, lambda: None),
    ]
    runner.measure(jobs, "cpu", Budget(0.01, sample_seconds=1e-3, min_samples=3), report)
    ours, baseline = report.records
    assert baseline["speed_up"] == 1
    assert ours["speed_up"] == baseline["seconds"] / ours["seconds"] > 4
    assert ours["time_over_mul"] is None
    (failure,) = report.failures
    assert failure["error"] == "RuntimeError: no such thing in file.py"
