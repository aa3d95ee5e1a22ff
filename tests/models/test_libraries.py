"""Models of timm and torchvision, and loops of accelerate and Lightning, with converted models.

Catches: a namesake that stays the library's; a functional call that is not found; a loop that does
not take the changed classes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dropout_ext

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries'

TIMM = {
    "vit_tiny_patch16_224": {
        "img_size": 32, "proj_drop_rate": 0.1, "attn_drop_rate": 0.1, "pos_drop_rate": 0.1,
    },
    "convnext_atto": {"drop_rate": 0.1},
    "efficientnet_b0": {"drop_rate": 0.1},
}  # fmt: skip


@pytest.mark.thorough
@pytest.mark.parametrize("name", TIMM)
def test_timm(name: str) -> None:
    timm = pytest.importorskip("timm", exc_type=ImportError)
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, drop_path_rate=0.2, **TIMM[name])
    converts(model, torch.randn(2, 3, 32, 32))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["vit_b_16", "efficientnet_b0", "convnext_tiny", "vgg11"])
def test_torchvision(name: str) -> None:
    torchvision = pytest.importorskip("torchvision", exc_type=ImportError)
    torch.manual_seed(0)
    size = {"image_size": 32} if name == "vit_b_16" else {}
    rates = {"dropout": 0.1, "attention_dropout": 0.1} if name == "vit_b_16" else {}
    model = getattr(torchvision.models, name)(num_classes=3, **size, **rates)
    converts(model, torch.randn(2, 3, 32, 32))


def converts(model: nn.Module, x: Tensor) -> None:
    """Nothing random stays the library's; evaluation, keys and the way back."""
    expected, keys = model.eval()(x), list(model.state_dict())
    classes = [type(module) for module in model.modules()]
    before = dropout_ext.find_torch_dropout(model, x)
    assert before
    report = dropout_ext.ConversionReport()
    dropout_ext.convert_dropout(model, report=report)
    assert not report.unchanged
    assert dropout_ext.find_torch_dropout(model, x) == {}
    assert torch.equal(model(x), expected) and list(model.state_dict()) == keys
    dropout_ext.revert_dropout(model)
    assert [type(module) for module in model.modules()] == classes
    assert dropout_ext.find_torch_dropout(model, x) == before


def network() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Linear(16, 1))
    return dropout_ext.convert_dropout(model)


def batches() -> Any:
    data = torch.utils.data.TensorDataset(torch.randn(10, 5, 16), torch.randn(10, 5, 1))
    return torch.utils.data.DataLoader(data, batch_size=2)


@pytest.mark.thorough
def test_accelerate() -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True)
    plain = network()
    model, optimizer, loader = accelerator.prepare(
        plain, torch.optim.SGD(plain.parameters(), 0.01), batches()
    )
    for x, y in loader:
        accelerator.backward(nn.functional.mse_loss(model(x), y))
        optimizer.step()
    unwrapped = accelerator.unwrap_model(model)
    assert dropout_ext.find_torch_dropout(unwrapped, torch.randn(2, 5, 16)) == {}


@pytest.mark.thorough
def test_lightning(tmp_path: Any) -> None:
    lightning = pytest.importorskip("lightning")

    class Loop(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = network()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            return nn.functional.mse_loss(self.model(batch[0]), batch[1])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.01)

    loop = Loop()
    trainer = lightning.Trainer(
        max_steps=5, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(loop, batches())
    assert trainer.global_step == 5
    assert dropout_ext.find_torch_dropout(loop.model, torch.randn(2, 5, 16)) == {}
