"""Dropout of weights instead of activations."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Generator, Tensor, nn
from torch.nn.utils import parametrize

from dropout_ext import functional as F
from dropout_ext.models.masked_weight import guard
from dropout_ext.modules.base import DropoutModule

AnyModule = TypeVar("AnyModule", bound=nn.Module)


class DropConnect(DropoutModule):
    """The parametrization that :func:`drop_connect` registers.

    Args:
        p: probability of an element of the parameter to be dropped, in [0, 1].
        generator: takes the place of the default generator of the parameter's device.
    """

    def forward(self, weight: Tensor, *, rng_state: Tensor | None = None) -> Tensor:
        masked = F.dropout(
            weight,
            self.p,
            self.training,
            generator=self.generator if rng_state is None else None,
            rng_state=rng_state,
        )
        return weight if masked is weight else guard(masked)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An assignment to the tensor sets its unmasked value."""
        return weight

    def extra_repr(self) -> str:
        return f"p={self.p}"


def drop_connect(
    module: AnyModule,
    p: float = 0.5,
    name: str = "weight",
    *,
    generator: Generator | None = None,
) -> AnyModule:
    """Drops elements of a parameter, with a fresh mask at each training forward.

    DropConnect (Wan et al., "Regularization of neural networks using DropConnect", ICML 2013; for
    the recurrent weights of an LSTM, Merity et al., "Regularizing and optimizing LSTM language
    models", 2018), inverted: the kept elements are scaled as by :func:`dropout`. The gradient is
    masked alike. In evaluation the module computes with the parameter itself.

    A parametrization (:mod:`torch.nn.utils.parametrize`) whose keys in ``state_dict`` remain those
    of the bare module, so that checkpoints pass between the two. Other parametrizations of the same
    tensor may come before or after it; the keys are then those of torch. The parameter itself has
    the name that torch gives it, ``parametrizations.weight.original``, in ``named_parameters``, in
    :func:`torch.func.functional_call` and for an optimizer whose state is keyed by names.

    A module with a parametrization does not pickle, as torch has it: save its ``state_dict``.
    Copies by :func:`copy.deepcopy` are modules of their own.

    Each time the parameter is read in training, a mask is drawn, and what is read refuses to be
    written to: it is no parameter, and a write would be lost. So initialize the module before, in
    evaluation, or by ``parametrizations.weight.original``. A module that reads it several times in
    a forward, as nn.LSTM does, has one mask within :func:`torch.nn.utils.parametrize.cached`.

    Args:
        module: any module; changed in place.
        p: probability of an element to be dropped, in [0, 1].
        name: of the parameter: ``"bias"``, ``"weight_hh_l0"``, ...
        generator: takes the place of the default generator of the parameter's device.

    Returns:
        ``module``.

    Raises:
        ValueError: ``p`` is not a number in [0, 1]; the parameter has this parametrization already;
            the module has no parameter of this name.
    """
    if _find(module, name) is not None:
        raise ValueError(f"drop_connect: {name!r} of {module} has DropConnect already")
    own = _own_parameters(module)
    if name not in own and not parametrize.is_parametrized(module, name):
        raise ValueError(
            f"drop_connect: {type(module).__name__} has no parameter {name!r}, but {list(own)}"
        )
    dropping = DropConnect(p, generator).train(module.training)
    order = list(module.state_dict())
    if parametrize.is_parametrized(module):
        _get_own_class(module)
    # Dtype and shape stay, so there is nothing to check by a trial run, which would draw.
    parametrize.register_parametrization(module, name, dropping, unsafe=True)
    owner: Any = module
    if not hasattr(module, "_bare_keys"):
        owner._bare_keys = order
        owner._bare_key_hooks = (
            owner.register_state_dict_post_hook(_to_bare_keys),
            owner.register_load_state_dict_pre_hook(_from_bare_keys),
        )
    cls: Any = type(module)  # made by torch for this module
    cls._fqn_modifiers, cls._unmasked = _checkpoint_names, property(_parametrizations)
    return module


def remove_drop_connect(module: AnyModule, name: str = "weight") -> AnyModule:
    """Undoes :func:`drop_connect`; the parameter keeps its unmasked value.

    Args:
        module: changed in place.
        name: of the parameter.

    Returns:
        ``module``.

    Raises:
        ValueError: the parameter has no DropConnect.
    """
    index = _find(module, name)
    if index is None:
        raise ValueError(f"remove_drop_connect: {name!r} of {module} has no DropConnect")
    _get_own_class(module)
    steps: Any = module.parametrizations[name]  # type: ignore[index]
    if len(steps) > 1:
        del steps[index]
    else:
        parametrize.remove_parametrizations(module, name, leave_parametrized=False)
    names = list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]
    if not any(_find(module, other) is not None for other in names):
        owner: Any = module
        for hook in owner._bare_key_hooks:
            hook.remove()
        _restore_order(module, owner._bare_keys)
        del owner._bare_keys, owner._bare_key_hooks
    return module


def _get_own_class(module: nn.Module) -> None:
    """torch's class for a module is shared with copies: what it gains and loses, all would."""
    cls = type(module)
    module.__class__ = type(cls.__name__, cls.__bases__, dict(vars(cls)))


def _checkpoint_names(module: nn.Module) -> dict[str, str]:
    """For torch.distributed.checkpoint, which follows a key by reading attributes: it takes the
    part of a key from this attribute, where it is read without drawing a mask."""
    return {bare: "_unmasked" for _, bare in _keys(module, "")}


def _parametrizations(module: nn.Module) -> Any:
    return module.parametrizations


def _find(module: nn.Module, name: str) -> int | None:
    if not parametrize.is_parametrized(module, name):
        return None
    steps = module.parametrizations[name]  # type: ignore[index]
    return next((k for k, step in enumerate(steps) if isinstance(step, DropConnect)), None)


def _keys(module: nn.Module, prefix: str) -> list[tuple[str, str]]:
    """Key of the parametrized and of the bare parameter, where DropConnect is all there is."""
    if not parametrize.is_parametrized(module):
        return []
    lists = dict(module.parametrizations.items())  # type: ignore[operator, union-attr]
    return [
        (f"{prefix}parametrizations.{name}.original", f"{prefix}{name}")
        for name, steps in lists.items()
        if len(steps) == 1 and isinstance(steps[0], DropConnect)
    ]


def _own_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    return dict(module.named_parameters(recurse=False, remove_duplicate=False))


def _restore_order(module: nn.Module, bare: list[str]) -> None:
    """Registers the parameters again in their order: parametrize puts one at the end."""
    parameters: dict[str, Any] = dict(_own_parameters(module))
    _reorder(parameters, bare, "")
    for name, parameter in parameters.items():
        delattr(module, name)
        module.register_parameter(name, parameter)


def _rename(state_dict: dict[str, Any], old: str, new: str) -> None:
    if old in state_dict:
        state_dict[new] = state_dict.pop(old)


def _reorder(values: dict[str, Any], bare: list[str], prefix: str) -> None:
    """The order of a bare module: its keys, then those that were added to it later."""
    keys = [f"{prefix}{key}" for key in bare]
    later = [key for key in values if key.startswith(prefix) and key not in keys]
    for key in keys + later:
        _rename(values, key, key)


def _to_bare_keys(
    module: nn.Module, state_dict: dict[str, Any], prefix: str, local_metadata: Any
) -> None:
    for parametrized, bare in _keys(module, prefix):
        _rename(state_dict, parametrized, bare)
    _reorder(state_dict, module._bare_keys, prefix)  # type: ignore[arg-type]


def _from_bare_keys(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    for parametrized, bare in _keys(module, prefix):
        _rename(state_dict, bare, parametrized)
