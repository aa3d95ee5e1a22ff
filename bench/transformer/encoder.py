"""A transformer encoder whose three dropouts per layer, and that of attention, can be exchanged."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from bench.candidates import RIVAL, SUBJECT, hand_written
from bench.dtypes import DTYPES
from bench.extension import dropout_ext

WITHOUT = "no dropout"


@dataclass(frozen=True)
class Shape:
    """The size of the model and of its input."""

    layers: int
    batch: int
    sequence: int
    width: int
    heads: int
    feedforward: int


class _Function(nn.Module):
    """A dropout that is a function of (x, p), made a module."""

    def __init__(self, function: Callable[[Tensor, float], Tensor], p: float) -> None:
        super().__init__()
        self.function = function
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.p)


@dataclass(frozen=True)
class Peer:
    """What stands in the place of the three dropouts, and whose the dropout of attention is."""

    dropout: Callable[[float], nn.Module]
    attention: Literal["torch", "converted", "none"] = "torch"


def peers(device: str) -> dict[str, Peer]:
    """All that is compared, by name."""
    found = {
        WITHOUT: Peer(lambda p: nn.Identity()),
        RIVAL: Peer(nn.Dropout),
        SUBJECT: Peer(dropout_ext.Dropout),
        "hand-written": Peer(lambda p: _Function(hand_written, p)),
        "convert_dropout": Peer(nn.Dropout, "converted"),
        f"{WITHOUT}, attention neither": Peer(lambda p: nn.Identity(), "none"),
    }
    if device == "cuda" and importlib.util.find_spec("triton") is not None:
        from bench.triton_peer import seeded_dropout

        found["triton seeded"] = Peer(lambda p: _Function(seeded_dropout, p))
    return found


def encoder(
    shape: Shape,
    peer: Peer,
    p: float,
    attention_p: float,
    dtype: str,
    device: str,
) -> nn.TransformerEncoder:
    """A post-norm encoder in training mode."""
    torch.manual_seed(0)
    if peer.attention == "none":
        attention_p = 0.0
    layer = nn.TransformerEncoderLayer(
        shape.width, shape.heads, shape.feedforward, attention_p, batch_first=True
    )
    for name in ("dropout", "dropout1", "dropout2"):
        setattr(layer, name, peer.dropout(p))
    model = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
    if peer.attention == "converted":
        dropout_ext.convert_dropout(model)
    return model.to(device=device, dtype=DTYPES[dtype]).train()


class Step:
    """One training step: forward, mean squared error, backward, AdamW."""

    def __init__(self, model: nn.TransformerEncoder, shape: Shape, compiled: bool) -> None:
        parameter = next(model.parameters()).detach()
        size = (shape.batch, shape.sequence, shape.width)
        # As the output of an embedding would, the input wants a gradient: all layers are alike.
        self.x = parameter.new_empty(size).normal_().requires_grad_()
        self.target = parameter.new_empty(size).normal_()
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        if compiled:
            for layer in model.layers:
                layer.compile()

    def forward(self) -> Tensor:
        """The loss."""
        output: Tensor = self.model(self.x)
        return nn.functional.mse_loss(output, self.target)

    def __call__(self, calls: int) -> None:
        """Makes the given number of steps."""
        for _ in range(calls):
            self.forward().backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.x.grad = None
