"""Dropout among the neighbours that it has in a transformer, with ours or with torch's own."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as torch_functional

import dropout_ext

Dropout = Callable[[torch.Tensor, float, torch.Tensor], torch.Tensor]
Block = Callable[..., torch.Tensor]


def ours(x: torch.Tensor, p: float, state: torch.Tensor) -> torch.Tensor:
    return dropout_ext.functional.dropout(x, p, rng_state=state)


def torchs(x: torch.Tensor, p: float, state: torch.Tensor) -> torch.Tensor:
    """What nn.Dropout is on CUDA; by name, as it would be another operator on the CPU."""
    return torch.native_dropout(x, p, True)[0]


def gelu(drop: Dropout, p: float = 0.1) -> Block:
    def block(
        x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor:
        return drop(torch_functional.gelu(x + bias), p, state) + residual

    return block


def layer_norm(drop: Dropout, p: float = 0.1) -> Block:
    def block(
        x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor:
        return torch_functional.layer_norm(drop(x, p, state) + residual, bias.shape, bias, bias)

    return block


def softmax(drop: Dropout, p: float = 0.1) -> Block:
    def block(
        x: torch.Tensor, bias: torch.Tensor, residual: torch.Tensor, state: torch.Tensor
    ) -> torch.Tensor:
        return drop(torch.softmax(x, -1), p, state)

    return block


BLOCKS = {"gelu": gelu, "layer norm": layer_norm, "softmax": softmax}


def inputs(dtype: torch.dtype, rows: int = 4096, columns: int = 1024) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = ((rows, columns), (columns,), (rows, columns))
    tensors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    return [*(x.requires_grad_() for x in tensors), dropout_ext.rng_state(5, 7)]
