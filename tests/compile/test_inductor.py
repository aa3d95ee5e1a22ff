"""Inductor's own loops for dropout, forced onto its C++ backend: the bits of the kernel.

Catches: a decision that differs from eager code's in any index map, dtype or size; one that is made
as often as it is read; a graph that is served from a cache although it was compiled under another
setting or by another version; a torch whose Inductor differs, and that nobody hears of.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config as inductor_config
import torch._inductor.graph
from torch._dynamo.utils import counters
from torch._functorch import config as functorch_config
from torch._inductor.utils import run_and_get_code

import dropout_ext
from dropout_ext import functional as F
from dropout_ext.integration import inductor
from tests.compile import blocks
from tests.helpers.cases import RNG_STATES
from tests.helpers.compare import assert_bits, random_bits, state, to_bits

ops = torch.ops.dropout_ext
EXTERN = "torch.ops.dropout_ext.dropout"
MULTIPLIER = str(0xD2511F53)  # ten times in a Philox call
ROOT = Path(dropout_ext.__file__).parents[1]


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Nothing from a cache, and the setting as it was."""
    torch._dynamo.reset()
    before = inductor.setting.fuse, inductor.setting.devices
    with (
        functorch_config.patch(enable_autograd_cache=False),
        inductor_config.patch(fx_graph_cache=False),
    ):
        yield
    inductor.setting.fuse, inductor.setting.devices = before
    torch._dynamo.reset()


@pytest.fixture
def fused() -> None:
    """On the CPU too."""
    inductor.setting.devices = frozenset({"cpu", "cuda"})


def generated(function: Callable[..., Any], *inputs: Any, **options: Any) -> tuple[Any, str]:
    """The result, and the sources of all graphs."""
    compiled = torch.compile(function, fullgraph=True, **options)
    result, sources = run_and_get_code(compiled, *inputs)
    code = "\n".join(sources)
    assert len(code) > 0
    return result, "\n".join(line for line in code.splitlines() if not line.startswith("#"))


SHAPE = (4, 6, 50)
MAPS: dict[str, dict[str, Any]] = {
    "row-major": {},
    "a base inside a block": {"mask_base": 3},
    "first shared": {"mask_strides": [0, 50, 1]},
    "last shared": {"mask_strides": [6, 1, 0]},
    "all shared": {"mask_strides": [0, 0, 0], "mask_base": 5},
    "piece of (9, 70, 101)": {"mask_strides": [7070, 101, 1], "mask_base": 7070 + 3 * 101 + 7},
    "backwards": {"mask_strides": [-300, -50, -1], "mask_base": 1199},
    "across 2^31": {"mask_base": 2**31 - 600},
    "across 2^32 blocks": {"mask_base": 2**35 - 300},
    "strides beyond 2^32": {"mask_strides": [2**40 + 3, 2**33, 5], "mask_base": 2**62 + 1},
}
RULES: dict[str, dict[str, Any]] = {
    "alpha": {"scale": 0.8, "shift": 0.2, "fill": -1.5},
    "classic": {"scale": 1.0},
    "fill alone": {"scale": 1.25, "fill": 3.0},
}
# All ties; none (the second call is left out); what drops nothing and everything.
PROBABILITIES = (2.0**-17, 0.5, 0.999999999, 2.0**-33, 1 - 2.0**-34)


def maps(x: torch.Tensor, seed: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {f"map: {name}": ops.dropout(x, 0.3, seed, **m) for name, m in MAPS.items()}
    for name in ("row-major", "a base inside a block", "first shared", "last shared", "all shared"):
        found[f"mask: {name}"] = ops.dropout_mask(x.shape, 0.3, seed, **MAPS[name])
    for p in PROBABILITIES:
        found[f"p: {p}"] = ops.dropout(x, p, seed)
        found[f"p, alpha: {p}"] = ops.dropout(x, p, seed, **RULES["alpha"])
        found[f"p, mask: {p}"] = ops.dropout_mask(x.shape, p, seed)
    found["many ties"] = ops.dropout_mask((1000, 1000), 2.0**-17, seed)
    found["no elements"] = ops.dropout(x[:0], 0.3, seed)
    return found


def rules(x: torch.Tensor, seed: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {f"rule: {name}": ops.dropout(x, 0.3, seed, **rule) for name, rule in RULES.items()}
    found["default"] = ops.dropout(x, 0.3, seed)
    if x.element_size() >= 4:
        found["transposed"] = ops.dropout(x.transpose(0, 2), 0.3, seed)
    found["of an expression"] = ops.dropout(x.abs(), 0.3, seed) + 0
    return found


def states(x: torch.Tensor, batch: torch.Tensor) -> dict[str, torch.Tensor]:
    return {
        "of a sample": ops.dropout(x, 0.3, batch[:, 0]),
        "of a row": ops.dropout(x, 0.3, batch, mask_strides=[9, 9, 2], mask_base=1),
    }


def assert_eager(function: Callable[..., dict[str, torch.Tensor]], *inputs: torch.Tensor) -> None:
    found, code = generated(function, *inputs)
    assert EXTERN not in code
    for name, expected in function(*inputs).items():
        assert_bits(found[name], to_bits(expected), name)
        assert found[name].dtype == expected.dtype


@pytest.mark.thorough
def test_bits_of_every_index_map_and_probability(fused: None) -> None:
    assert_eager(maps, random_bits(SHAPE, torch.float32, seed=1), state(RNG_STATES[6]))


@pytest.mark.thorough
def test_bits_of_every_dtype_and_rule(fused: None, dtype: torch.dtype) -> None:
    assert_eager(rules, random_bits(SHAPE, dtype, seed=1), state(RNG_STATES[6]))


@pytest.mark.thorough
def test_bits_of_states_of_their_own(fused: None) -> None:
    batch = torch.stack([state((7 * k, k)) for k in range(24)]).view(4, 6, 2)
    assert_eager(states, random_bits(SHAPE, torch.float32, seed=1), batch)


@pytest.mark.thorough
def test_states_with_every_half_in_use(fused: None) -> None:
    states = torch.stack([state(each) for each in RNG_STATES])
    x = torch.ones(len(states), 40)
    found, code = generated(lambda x, states: ops.dropout(x, 0.3, states), x, states)
    assert EXTERN not in code
    for row, each in zip(found, RNG_STATES, strict=True):
        assert torch.equal(row != 0, F.dropout_mask(40, 0.3, rng_state=state(each)))


X = torch.randn(16, 24, 40)
ELSEWHERE = {
    "transposed": lambda x, s: ops.dropout(x.transpose(1, 2), 0.3, s),
    "heads": lambda x, s: ops.dropout(x.transpose(0, 1), 0.3, s),
    "piece": lambda x, s: ops.dropout(x, 0.3, s, mask_strides=[2000, 50, 1]),
    "beyond 2^31": lambda x, s: ops.dropout(x, 0.3, s, mask_base=2**31),
    "states": lambda x, s: ops.dropout(x, 0.3, s.expand(16, 2)),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", ELSEWHERE)
def test_16_bits_are_fused_where_neighbours_share(fused: None, name: str) -> None:
    """Elsewhere the kernel takes less time than the Philox calls of each element."""
    s = state(RNG_STATES[6])
    for dtype, kernel in ((torch.bfloat16, True), (torch.float32, False)):
        found, code = generated(ELSEWHERE[name], X.to(dtype), s)
        assert (EXTERN in code) == kernel
        assert torch.equal(found, ELSEWHERE[name](X.to(dtype), s))


@pytest.mark.thorough
def test_one_graph_for_all_sizes(fused: None) -> None:
    """Sizes that are multiples of nothing; a piece whose place and whole are symbols."""

    def f(x: torch.Tensor, whole: torch.Tensor, s: torch.Tensor) -> list[torch.Tensor]:
        piece = F.dropout(x, 0.3, rng_state=s, shard=(whole.shape, (whole.shape[0] - len(x), 2)))
        return [F.dropout(x, 0.3, rng_state=s), piece, F.dropout_mask(x.shape, 0.5, rng_state=s)]

    counters.clear()
    compiled = torch.compile(f, fullgraph=True, dynamic=True)
    s = state(RNG_STATES[6])
    for rows, columns in ((3, 8), (5, 9), (40, 31), (7, 1000)):
        x, whole = torch.randn(rows, columns), torch.empty(rows + columns, columns + 5)
        for found, expected in zip(compiled(x, whole, s), f(x, whole, s), strict=True):
            assert torch.equal(found, expected)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.thorough
def test_symbols_beyond_32_bits_are_left_to_the_kernel(fused: None) -> None:
    def f(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return ops.dropout(x, 0.3, s, mask_strides=[2**40 * x.shape[0], 2])

    x, s = torch.randn(6, 50), state(RNG_STATES[6])
    found, code = generated(f, x, s, dynamic=True)
    assert EXTERN in code
    assert torch.equal(found, f(x, s))


@pytest.mark.thorough
def test_training_is_eager_training(fused: None) -> None:
    """Drawn states, forward and backward, twice."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(F.dropout(x, 0.4).relu(), 0.5, broadcast_dims=1) + x

    def run(function: Callable[[torch.Tensor], torch.Tensor]) -> list[torch.Tensor]:
        torch.manual_seed(3)
        x = torch.randn(30, 41, requires_grad=True)
        found = []
        for _ in range(2):
            y = function(x)
            found += [y.detach(), *torch.autograd.grad(y.square().sum(), x)]
        return [*found, torch.rand(2)]

    for expected, found in zip(run(f), run(torch.compile(f, fullgraph=True)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.thorough
def test_what_is_shared_or_read_often_is_made_once(fused: None) -> None:
    """One Philox call in the source each, in a loop over its 50 decisions."""

    def f(x: torch.Tensor, y: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return F.dropout(x, 0.5, rng_state=s).expand(64, 50) + y

    x, y, s = torch.randn(1, 50), torch.randn(64, 50), dropout_ext.rng_state(3)
    for function in (f, lambda x, y, s: F.dropout(y + x, 0.5, rng_state=s, broadcast_dims=0)):
        found, code = generated(function, x, y, s)
        assert torch.equal(found, function(x, y, s))
        before, *after = code.split(MULTIPLIER)
        loops = re.findall(r"<static_cast<int64_t>\((\d+)L\)", before)
        assert len(after) == 1 and "50" in loops and not {"64", "3200"} & {*loops}


@pytest.mark.thorough
def test_no_more_is_saved_than_with_torchs_dropout(fused: None) -> None:
    """Of linear, GELU, dropout, residual, layer norm, linear: 16 bytes for a mask of bytes."""

    def saved(drop: blocks.Dropout) -> int:
        first, last = torch.nn.Linear(64, 128), torch.nn.Linear(128, 32)
        block, norm = blocks.gelu(drop), torch.nn.LayerNorm(128)
        bias = torch.zeros(128, requires_grad=True)

        def model(x: torch.Tensor, residual: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            return last(norm(block(first(x), bias, residual, state)))

        x, residual = (torch.randn(256, n, requires_grad=True) for n in (64, 128))
        given = {id(each) for m in (first, last, norm) for each in m.parameters()}
        given |= {id(each) for each in (x, residual, bias)}
        bytes_saved: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            if id(tensor) not in given:
                bytes_saved.append(tensor.nbytes)
            return tensor

        compiled = torch.compile(model, backend="aot_eager_decomp_partition", fullgraph=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            compiled(x, residual, dropout_ext.rng_state(3))
        return sum(bytes_saved)

    assert saved(blocks.ours) <= saved(blocks.torchs) - 256 * 128 + 16


def test_on_the_cpu_the_kernel_stays() -> None:
    x, s = torch.randn(100), dropout_ext.rng_state(3)
    found, code = generated(lambda x, s: F.dropout(x, 0.3, rng_state=s), x, s)
    assert EXTERN in code
    assert torch.equal(found, F.dropout(x, 0.3, rng_state=s))


def test_fusion_is_switched_off(fused: None) -> None:
    dropout_ext.fuse_in_compiled_graphs(False)
    x, s = torch.randn(100, dtype=torch.bfloat16), dropout_ext.rng_state(3)
    found, code = generated(lambda x, s: F.dropout(x, 0.3, rng_state=s), x, s)
    assert EXTERN in code
    assert torch.equal(found, F.dropout(x, 0.3, rng_state=s))


def test_the_switch_takes_a_bool() -> None:
    with pytest.raises(TypeError, match="must be a bool, but got 'no'"):
        dropout_ext.fuse_in_compiled_graphs("no")  # type: ignore[arg-type]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", textwrap.dedent(code)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.thorough
def test_environment() -> None:
    setting = "import dropout_ext; print(dropout_ext.integration.inductor.setting.fuse)"
    assert python(setting, DROPOUT_EXT_FUSE="0").stdout.split() == ["False"]
    refused = python(setting, DROPOUT_EXT_FUSE="no")
    assert "DROPOUT_EXT_FUSE must be 0 or 1, but is 'no'" in refused.stderr


# In processes of their own: whether Inductor was imported before is what they are about.


@pytest.mark.thorough
@pytest.mark.parametrize("first", ["dropout_ext", "torch._inductor.graph"])
def test_registered_whoever_is_imported_first(first: str) -> None:
    done = python(
        f"""
        import sys, {first}, dropout_ext
        assert ("torch._inductor.lowering" in sys.modules) == ({first!r} != "dropout_ext")
        import torch, torch._inductor.compile_fx
        from torch._inductor.lowering import lowerings
        assert torch.ops.dropout_ext.dropout.default in lowerings
        assert torch.ops.dropout_ext.dropout_mask.default in lowerings
        assert not any("_WhenImported" in repr(finder) for finder in sys.meta_path)
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_another_inductor_is_a_warning_and_the_kernel() -> None:
    """A name that is gone when Inductor is imported, one that fails when a graph is lowered."""
    done = python(
        """
        import warnings, torch, dropout_ext
        from dropout_ext.integration import inductor
        inductor.setting.devices = frozenset({"cpu"})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            from torch._inductor import ops_handler
            del ops_handler.OpsHandler.bitwise_xor
            x, state = torch.randn(50), dropout_ext.rng_state(3)
            f = lambda x: dropout_ext.functional.dropout(x, 0.3, rng_state=state)
            assert torch.equal(torch.compile(f)(x), f(x))
        messages = [str(warning.message) for warning in caught]
        (message,) = [m for m in messages if m.startswith("dropout_ext")]
        assert "has no attribute 'bitwise_xor'" in message and torch.__version__ in message
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_an_inductor_of_other_classes_is_not_half_changed() -> None:
    done = python(
        """
        import warnings, torch, dropout_ext
        import torch._functorch.partitioners as partitioners
        del partitioners.OpTypes.is_fusible
        known = partitioners.OpTypes.is_recomputable
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            import torch._inductor.codecache, torch._inductor.graph
        messages = [str(warning.message) for warning in caught]
        (message,) = [m for m in messages if m.startswith("dropout_ext")]
        assert "has no attribute 'is_fusible'" in message
        assert partitioners.OpTypes.is_recomputable is known
        assert "dropout_ext" not in torch._inductor.codecache.FxGraphHashDetails.__init__.__module__
        assert not dropout_ext.integration.inductor.setting.fuse
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_an_import_of_inductor_that_fails_once() -> None:
    done = python(
        """
        import builtins, torch, dropout_ext
        known, failed = builtins.__import__, []

        def fail_once(name, *rest, **more):
            if name.endswith("sizevars") and not failed:
                failed.append(name)
                raise ImportError("once")
            return known(name, *rest, **more)

        builtins.__import__ = fail_once
        try:
            import torch._inductor.graph
        except ImportError:
            pass
        builtins.__import__ = known
        import sys, torch._inductor.graph
        from torch._inductor.lowering import lowerings
        assert failed and torch.ops.dropout_ext.dropout.default in lowerings
        assert not any("_WhenImported" in repr(finder) for finder in sys.meta_path)
        """
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
def test_sizes_of_data(fused: None) -> None:
    """Of 16 bits, whose order in memory is asked for: fusion goes on, and so does the process."""
    x, s = torch.rand(20, 30).bfloat16(), dropout_ext.rng_state(3)

    def chosen(x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x[x[:, 0] > 0.5], 0.4, rng_state=s)

    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        assert torch.equal(torch.compile(chosen, fullgraph=True)(x), chosen(x))
    assert inductor.setting.fuse


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
@pytest.mark.thorough
def test_mask_indices_of_a_package_that_checks_no_guards(fused: None, tmp_path: Path) -> None:
    """Exported with an example whose mask indices fit 32 bits, run where they do not."""

    class Piece(torch.nn.Module):
        def forward(self, x: torch.Tensor, whole: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
            begin = whole.shape[0] - x.shape[0]
            return F.dropout(x, 0.3, rng_state=s, shard=(whole.shape, (begin, 0)))

    def whole(rows: int) -> torch.Tensor:
        return torch.empty(1, 1).expand(rows, 64)

    x, s = torch.rand(8, 64), dropout_ext.rng_state(5, 7)
    rows = torch.export.Dim("rows", min=8, max=2**40)
    exported = torch.export.export(Piece(), (x, whole(100), s), dynamic_shapes=({}, {0: rows}, {}))
    path = torch._inductor.aoti_compile_and_package(
        exported, package_path=str(tmp_path / "piece.pt2")
    )
    package = torch._inductor.aoti_load_package(path)
    for count in (1000, 2**30):
        assert torch.equal(package(x, whole(count), s), Piece()(x, whole(count), s)), count


@pytest.mark.thorough
def test_a_lowering_that_fails_is_a_warning_and_the_kernel(
    fused: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dropout_ext.integration import inductor_lowering

    monkeypatch.delattr(inductor_lowering.inductor_mask, "place_of_word")
    x, s = torch.randn(100), dropout_ext.rng_state(3)
    with pytest.warns(UserWarning, match="do not fuse dropout.*place_of_word") as caught:
        found, code = generated(
            lambda x, s: [F.dropout(x, p, rng_state=s) for p in (0.3, 0.4)], x, s
        )
    messages = [str(each.message) for each in caught]
    assert len([m for m in messages if "fuse" in m]) == 1 and EXTERN in code
    assert torch.equal(found[0], F.dropout(x, 0.3, rng_state=s))


COMPILE = """
    import json, sys, torch, torch._inductor.config, dropout_ext
    from torch._dynamo.utils import counters
    from dropout_ext import functional as F
    from dropout_ext.integration import inductor

    inductor.setting.devices = frozenset({"cpu"})
    torch._inductor.config.cpp_cache_precompile_headers = False  # saves half a minute
    x, state = torch.randn(64), dropout_ext.rng_state(3)

    def compile():
        counters.clear()
        torch._dynamo.reset()
        y = torch.compile(lambda x, state: F.dropout(x, 0.3, rng_state=state))(x, state)
        assert torch.equal(y, F.dropout(x, 0.3, rng_state=state))
        hits = counters["inductor"]["fxgraph_cache_hit"]
        return hits + counters["aot_autograd"]["autograd_cache_hit"]
"""


@pytest.mark.thorough
def test_caches_keep_settings_and_versions_apart(tmp_path: Path) -> None:
    """A cache that the first process has filled."""
    environment = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}
    environment["TORCHINDUCTOR_AUTOGRAD_CACHE"] = "1"
    first = python(COMPILE + "    print(json.dumps(compile()))", **environment)
    assert first.returncode == 0 and json.loads(first.stdout) == 0, first.stderr
    second = python(
        COMPILE
        + """
    hits = {"same": compile()}
    dropout_ext.fuse_in_compiled_graphs(False)
    hits["off"] = compile()
    dropout_ext.fuse_in_compiled_graphs(True)
    inductor._sources = lambda: "another version"
    hits["version"] = compile()
    print(json.dumps(hits))
    """,
        **environment,
    )
    assert second.returncode == 0, second.stderr
    hits = json.loads(second.stdout)
    assert hits.pop("same") > 0
    assert hits == {"off": 0, "version": 0}


@pytest.mark.thorough
def test_keys_of_other_graphs_are_not_ours() -> None:
    """A cache that was filled without this package serves them."""
    details = torch._inductor.codecache.FxGraphHashDetails
    overloads = torch.fx.Graph()  # as Dynamo writes an operator into its graphs
    overloads.call_function(torch.ops.dropout_ext.dropout, (None, 0.5, None))
    assert hasattr(details(torch.fx.GraphModule({}, overloads), [], {}, []), "dropout_ext")
    for function, ours in ((torch.sin, False), (lambda x: F.dropout(x, 0.5), True)):
        graph = torch.fx.experimental.proxy_tensor.make_fx(function)(torch.ones(3))
        assert hasattr(details(graph, [], {}, []), "dropout_ext") == ours


def test_the_key_knows_every_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte in any file of the lowering is another key."""
    folder = Path(inductor.__file__).parent
    lowering = {path.name for path in folder.glob("*inductor*.py")}
    assert "inductor_mask.py" in lowering
    imports = re.compile(r"^from dropout_ext\.integration(?:\.(\w+))? import (.+)$", re.M)
    names = set(lowering)
    for name in lowering:
        for module, members in imports.findall((folder / name).read_text()):
            names |= {f"{one.strip()}.py" for one in ([module] if module else members.split(","))}
    read = Path.read_bytes
    keys = {inductor._sources.__wrapped__()}
    for name in names:
        changed = lambda path, name=name: read(path) + b"#" * (path.name == name)  # noqa: E731
        monkeypatch.setattr(Path, "read_bytes", changed)
        keys.add(inductor._sources.__wrapped__())
    assert len(keys) == 1 + len(names)
