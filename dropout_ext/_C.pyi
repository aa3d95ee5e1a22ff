from collections.abc import Callable
from typing import Any

from torch import Generator, Tensor

def dropout(
    input: Tensor,
    p: float,
    inplace: bool,
    generator: Generator | None = None,
    rng_state: Tensor | None = None,
    mask_strides: list[int] | None = None,
    mask_base: int = 0,
    scale: float | None = None,
    shift: float = 0.0,
    fill: float = 0.0,
) -> Tensor: ...
def plain_dropout(input: Tensor, p: float, inplace: bool) -> Tensor: ...
def check_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    p: float,
    is_causal: bool,
) -> None: ...
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    p: float,
    is_causal: bool,
    scale: float | None,
    generator: Generator | None,
    rng_state: Tensor | None,
    mask_strides: list[int] | None,
    mask_base: int,
) -> Tensor: ...
def alpha_coefficients(p: float) -> tuple[float, float, float]: ...
def register_generator(generator: Generator) -> int: ...
def set_repeat(
    function: Callable[[Generator, Callable[[], Tensor]], Tensor | None],
) -> None: ...
def cpu_path() -> str: ...
def cpu_paths() -> list[str]: ...
def set_cpu_path(name: str) -> None: ...
def build_facts() -> dict[str, Any]: ...
