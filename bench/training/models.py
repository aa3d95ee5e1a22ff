"""The networks of the tutorials, with each form of dropout in its place."""

import itertools
from collections.abc import Callable, Sequence

from torch import nn

from bench.candidates import RIVAL
from bench.extension import dropout_ext

WITHOUT = "no dropout"
ELEMENTWISE = "elementwise"
MONTE_CARLO = "MC dropout"
"""The elementwise form again, evaluated by the mean of stochastic passes."""

Place = Callable[[float, nn.Linear], Sequence[nn.Module]]
"""What stands between an activation and the layer that follows, for a probability."""

FORMS: dict[str, Place] = {
    WITHOUT: lambda p, layer: [layer],
    RIVAL: lambda p, layer: [nn.Dropout(p), layer],
    ELEMENTWISE: lambda p, layer: [dropout_ext.Dropout(p), layer],
    "node-wise": lambda p, layer: [dropout_ext.Dropout(p, broadcast_dims=0), layer],
    "DropConnect": lambda p, layer: [dropout_ext.drop_connect(layer, p)],
    "classic": lambda p, layer: [dropout_ext.Dropout(p, mode="downscale_in_infer"), layer],
}

# Widths of the hidden layers, and the probability to drop after each.
NETWORKS: dict[str, tuple[Sequence[int], Sequence[float]]] = {
    "mlp": ((512, 512), (0.0, 0.5)),
    "wide": ((1024, 1024, 1024), (0.1, 0.2, 0.2)),
}


def network(name: str, form: str, features: int, classes: int = 10) -> nn.Sequential:
    """Linear layers with ReLU; the form of dropout before each layer that has one."""
    widths, probabilities = NETWORKS[name]
    layers: list[nn.Module] = []
    sizes = [features, *widths, classes]
    for index, (size, next_size) in enumerate(itertools.pairwise(sizes)):
        layer = nn.Linear(size, next_size)
        p = probabilities[index - 1] if index else 0.0
        layers += FORMS[form](p, layer) if p else [layer]
        if index < len(widths):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
