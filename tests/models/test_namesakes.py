"""Classes of timm and torchvision that drop, found by their names.

Catches: a package imported to look for its classes; a DropPath of timm or of a vision model taken
for something else; a block with parameters taken for a dropout by its name.
"""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import pytest
from torch import nn

import dropout_ext
from dropout_ext.models.namesakes import looks_like_dropout, namesakes


class DropPath(nn.Module):
    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob


def module_with(name: str, cls: type) -> ModuleType:
    module = ModuleType(name)
    setattr(module, cls.__name__, cls)
    return module


def test_found_in_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm.layers.drop", module_with("timm.layers.drop", DropPath))
    assert namesakes()[DropPath] is dropout_ext.DropPath


def test_nothing_is_imported() -> None:
    """In a process of its own, where no test has imported them."""
    code = (
        "import sys\n"
        "from dropout_ext.models.namesakes import namesakes\n"
        "assert namesakes() == {}\n"
        "assert not {'timm', 'torchvision', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


NAMED = {
    "DropPath": True, "SwinDropPath": True, "DropBlock2d": True, "PatchDropout": True,
    "PatchDropoutWithIndices": True, "StableDropout": True, "XDrop": True, "WordDrop1d": True,
    "StochasticDepth": True, "DropConnect": True, "Dropdown": False, "Backdrop": False,
    "Linear": False, "RainDroplet": False,
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_by_name(name: str) -> None:
    assert looks_like_dropout(type(name, (nn.Module,), {})()) is NAMED[name]


def test_a_block_is_no_dropout() -> None:
    class MLPWithDropout(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(2, 2)

    assert not looks_like_dropout(MLPWithDropout())
    assert looks_like_dropout(type("Sub", (nn.Dropout,), {})())


def test_timm_and_torchvision() -> None:
    timm_drop = pytest.importorskip("timm.layers.drop")
    assert namesakes()[timm_drop.DropPath] is dropout_ext.DropPath
