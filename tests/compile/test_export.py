"""torch.export and AOTInductor: the program that was saved draws like the module it came from.

Catches: a mask frozen into the program; a draw lost on the way to disk; a training program that
turned into the one for evaluation; a generator that silently becomes the default one.
"""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dropout_ext

# Serialising warns about itself on some versions.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning"
)


def model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(8, 16), dropout_ext.Dropout(0.5), torch.nn.GELU(), dropout_ext.Dropout(0.3)
    )


def seeded(function: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [function(x), function(x), torch.rand(2)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_saved_and_loaded(training: bool, strict: bool) -> None:
    module, x = model().train(training), torch.randn(5, 8)
    program = torch.export.export(module, (x,), strict=strict)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    buffer.seek(0)
    loaded = torch.export.load(buffer).module()
    for expected, found in zip(seeded(module, x), seeded(loaded, x), strict=True):
        assert torch.equal(found, expected)
    assert ("draw" in str(program.graph)) == training


def test_decomposed_and_dynamic() -> None:
    """In the core dialect, for any batch size."""
    module, x = model(), torch.randn(5, 8)
    batch = torch.export.Dim("batch", min=2, max=1000)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: batch},))
    lowered = program.run_decompositions().module()
    for rows in (3, 64):
        x = torch.randn(rows, 8)
        for expected, found in zip(seeded(module, x), seeded(lowered, x), strict=True):
            torch.testing.assert_close(found, expected)


def test_explicit_state_is_an_input() -> None:
    class Explicit(torch.nn.Module):
        def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            return dropout_ext.functional.dropout(x, 0.5, rng_state=state)

    x = torch.ones(300)
    program = torch.export.export(Explicit(), (x, dropout_ext.rng_state(1))).module()
    for seed in (1, 2):
        state = dropout_ext.rng_state(seed)
        assert torch.equal(program(x, state), Explicit()(x, state))


@pytest.mark.thorough
@pytest.mark.parametrize("others", [0, 3])
def test_generator_is_of_this_process(tmp_path: Path, others: int) -> None:
    """Elsewhere nothing is known under its number, and the program says so; also where the process
    has registered generators of its own, which a small number would find."""
    module = dropout_ext.Dropout(0.5, generator=torch.Generator().manual_seed(1))
    x = torch.ones(200)
    expected = dropout_ext.Dropout(0.5, generator=torch.Generator().manual_seed(1))(x)
    program = torch.export.export(module, (x,), strict=False)
    torch.export.save(program, tmp_path / "model.pt2")
    assert torch.equal(program.module()(x), expected)
    code = (
        "import torch, dropout_ext\n"
        "export = lambda m: torch.export.export(m, (torch.ones(3),), strict=False).module()\n"
        "new = lambda: dropout_ext.Dropout(generator=torch.Generator())\n"
        f"own = [export(new())(torch.ones(3)) for _ in range({others})]\n"
        f"torch.export.load({str(tmp_path / 'model.pt2')!r}).module()(torch.ones(200))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert done.returncode != 0
    assert "traced with a torch.Generator" in done.stderr


@pytest.mark.slow
def test_aot_inductor_package(tmp_path: Path, lowering: str) -> None:
    """Our operators are called from the compiled library, or are part of it."""
    x = torch.randn(5, 8)
    modules = [model().train()] if lowering == "fused" else [model().train(), model().eval()]
    for module in modules:
        program = torch.export.export(module, (x,))
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(tmp_path / f"{module.training}.pt2")
        )
        loaded = torch._inductor.aoti_load_package(path)
        with torch.no_grad():
            for expected, found in zip(seeded(module, x), seeded(loaded, x), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
