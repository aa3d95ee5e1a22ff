"""CUDA graphs: every replay draws anew, from the state that the generator has then.

Catches: a captured mask that is replayed for ever; a backward that does not see the state which
the replayed forward wrote.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

import dropout_ext
from dropout_ext import functional as F
from tests.helpers.compare import assert_bits, expected_dropout, state

pytestmark = pytest.mark.needs_cuda


def capture(function: Callable[[], object]) -> torch.cuda.CUDAGraph:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            function()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return graph


def test_graph_draws_anew_on_each_replay() -> None:
    x, out = torch.ones(5000, device="cuda"), torch.empty(5000, device="cuda")
    graph = capture(lambda: out.copy_(F.dropout(x, 0.5)))
    seen = []
    for _ in range(4):
        graph.replay()
        torch.cuda.synchronize()
        seen.append(out.clone())
        assert set(out.unique().tolist()) == {0.0, 2.0}
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(seen))


def test_graph_draws_what_eager_would() -> None:
    x, out = torch.ones(5000, device="cuda"), torch.empty(5000, device="cuda")
    graph = capture(lambda: out.copy_(F.dropout(x, 0.5)))
    torch.manual_seed(77)
    eager = [F.dropout(x, 0.5), F.dropout(x, 0.5)]
    torch.manual_seed(77)
    for expected in eager:
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, expected)


def test_graph_of_forward_and_backward() -> None:
    """The captured backward reads the state that the replayed forward wrote."""
    x = torch.ones(5000, device="cuda", requires_grad=True)
    out = torch.empty(5000, device="cuda")
    gradient = torch.empty(5000, device="cuda")

    def step() -> None:
        y = F.dropout(x, 0.5)
        out.copy_(y.detach())
        gradient.copy_(torch.autograd.grad(y, x, torch.ones_like(y))[0])

    graph = capture(step)
    seen = []
    for _ in range(3):
        graph.replay()
        torch.cuda.synchronize()
        assert torch.equal(out, gradient)
        seen.append(out.clone())
    assert not torch.equal(seen[0], seen[1])


def test_graph_with_an_explicit_state_reads_it_on_replay() -> None:
    x, out = torch.ones(5000, device="cuda"), torch.empty(5000, device="cuda")
    rng_tensor = state((1, 2), "cuda")
    graph = capture(lambda: out.copy_(F.dropout(x, 0.5, rng_state=rng_tensor)))
    for numbers in [(1, 2), (3, 4), (5, 6)]:
        rng_tensor.copy_(state(numbers))
        graph.replay()
        torch.cuda.synchronize()
        assert_bits(out, expected_dropout(torch.ones(5000), 0.5, numbers))


def test_graph_of_two_layers() -> None:
    """Two draws in one graph stay apart, and the generator moves on by both."""
    x = torch.ones(5000, device="cuda")
    outs = [torch.empty(5000, device="cuda") for _ in range(2)]

    def step() -> None:
        for out in outs:
            out.copy_(F.dropout(x, 0.5))

    graph = capture(step)
    torch.manual_seed(5)
    graph.replay()
    torch.cuda.synchronize()
    first = [out.clone() for out in outs]
    assert not torch.equal(first[0], first[1])
    graph.replay()
    torch.cuda.synchronize()
    assert not any(torch.equal(out, old) for out in outs for old in first)


def test_replays_leave_the_generator_where_eager_does() -> None:
    x, out = torch.ones(5000, device="cuda"), torch.empty(5000, device="cuda")
    graph = capture(lambda: out.copy_(F.dropout(x, 0.5)))
    torch.manual_seed(7)
    for _ in range(5):
        graph.replay()
    after = F.dropout(x, 0.5)
    torch.manual_seed(7)
    for _ in range(5):
        F.dropout(x, 0.5)
    assert torch.equal(F.dropout(x, 0.5), after)


def trained(function: Callable[[torch.Tensor], torch.Tensor], count: int) -> list[torch.Tensor]:
    torch.manual_seed(13)
    found = []
    for _ in range(count):
        x = torch.ones(64, 32, device="cuda", requires_grad=True)
        y = function(x)
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        found += [y.detach().clone(), gradient.clone()]
    return found


# What torch 2.11 says whatever the layers: it keeps the graph of its warm-up.
@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning")
def test_make_graphed_callables() -> None:
    layers = torch.nn.Sequential(dropout_ext.Dropout(0.5), dropout_ext.Dropout(0.2)).cuda()
    expected = trained(layers, 4)
    sample = torch.ones(64, 32, device="cuda", requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(layers, (sample,))
    for found, eager in zip(trained(graphed, 4), expected, strict=True):
        assert torch.equal(found, eager)


@pytest.mark.torch_kernels
def test_reduce_overhead() -> None:
    """compile(mode="reduce-overhead"): warm-up, recording and replays all draw as eager does."""
    layers = torch.nn.Sequential(dropout_ext.Dropout(0.5), dropout_ext.Dropout(0.2)).cuda()
    expected = trained(layers, 6)
    compiled = torch.compile(layers, fullgraph=True, mode="reduce-overhead")
    for found, eager in zip(trained(compiled, 6), expected, strict=True):
        assert torch.equal(found, eager)
