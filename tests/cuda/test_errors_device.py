"""Devices that do not fit together, and those that are not there.

Catches: an error only after something was drawn; a CUDA tensor that meets a build without CUDA and
gets a dispatcher dump instead of the command that mends it.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import dropout_ext
from dropout_ext import functional as F

ERRORS = (TypeError, ValueError, RuntimeError)


def test_generator_of_another_device() -> None:
    """A tensor that claims to be on CUDA is enough: nothing is computed."""
    generator = torch.Generator()
    before = generator.get_state()
    with FakeTensorMode():
        x = torch.empty(5, device="cuda")
        with pytest.raises(ERRORS) as error:
            F.dropout(x, generator=generator)
    assert "cpu" in str(error.value)
    assert "cuda" in str(error.value)
    assert torch.equal(generator.get_state(), before)


class ClaimsCuda(torch.Tensor):
    """A tensor without memory that says it is on CUDA; our operators take it for that."""

    @staticmethod
    def __new__(cls, *shape: int, dtype: torch.dtype = torch.float32) -> ClaimsCuda:
        device = torch.device("cuda")
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=dtype, device=device)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.namespace == "dropout_ext":
            cuda = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)
            return func.redispatch(cuda, *args, **(kwargs or {}))
        assert func is torch.ops.aten.empty_like.default
        return cls(*args[0].shape)


@pytest.mark.parametrize("inplace", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
def test_cuda_tensor_without_cuda_kernels(inplace: bool, explicit: bool) -> None:
    if dropout_ext.build_info()["cuda"] is not None:
        pytest.skip("dropout_ext was built with CUDA")
    rng_tensor = ClaimsCuda(2, dtype=torch.int64) if explicit else None
    with pytest.raises(RuntimeError, match=r"without CUDA") as error:
        F.dropout(ClaimsCuda(5), inplace=inplace, rng_state=rng_tensor)
    assert "FORCE_CUDA=1" in str(error.value)
    assert "pip install" in str(error.value)
