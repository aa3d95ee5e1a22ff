"""Models as they are written elsewhere, small."""

from __future__ import annotations

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """A residual block as in torchvision, with dropout between its convolutions."""

    def __init__(self, width: int, p: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout2d(p)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.drop(self.relu(self.bn1(self.conv1(x))))
        result: Tensor = self.relu(self.bn2(self.conv2(out)) + x)
        return result


class ResNet(nn.Module):
    def __init__(self, width: int = 8, p: float = 0.2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.layers = nn.Sequential(BasicBlock(width, p), BasicBlock(width, p))
        self.head = nn.Sequential(nn.Dropout(p), nn.Linear(width, 5))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.layers(self.stem(x)).mean((2, 3)))
        return result


class Attention(nn.Module):
    """As in timm: fused attention, its dropout given by a number."""

    def __init__(self, width: int, heads: int, p: float) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.attn_drop = nn.Dropout(p)
        self.proj = nn.Linear(width, width)
        self.proj_drop = nn.Dropout(p)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        p = self.attn_drop.p if self.training else 0.0
        out = nn.functional.scaled_dot_product_attention(*qkv.unbind(0), dropout_p=p)
        out = out.transpose(1, 2).reshape(batch, tokens, width)
        result: Tensor = self.proj_drop(self.proj(out))
        return result


class ViTBlock(nn.Module):
    def __init__(self, width: int = 16, heads: int = 2, p: float = 0.2) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, p)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(p), nn.Linear(4 * width, width),
            nn.Dropout(p),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Translator(nn.Module):
    """nn.Transformer with one input."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Transformer(16, 2, 1, 1, 32, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.inner(x, x)
        return result


def step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of a training step."""
    model.zero_grad()
    y = model(x)
    y.square().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
