"""What a conversion did."""

import warnings
from dataclasses import dataclass, field


@dataclass
class ConversionReport:
    """Filled by :func:`convert_dropout` and :func:`revert_dropout`.

    Attributes:
        changed: qualified name of each module that was changed, to its class before and after.
            The model itself has the name ``""``.
        unchanged: qualified name of each module with a dropout that was left as it is, to the
            reason.
    """

    changed: dict[str, tuple[type, type]] = field(default_factory=dict)
    unchanged: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{name or 'the model'}: {_qualified(before)} -> {_qualified(after)}"
            for name, (before, after) in self.changed.items()
        ]
        lines += [f"{name or 'the model'}: left, {why}" for name, why in self.unchanged.items()]
        return "\n".join(lines) or "no dropout found"

    def warn_of_unchanged(self) -> None:
        """One warning for all that was left as it is."""
        if self.unchanged:
            left = "; ".join(
                f"{name or 'the model'}: {why}" for name, why in self.unchanged.items()
            )
            warnings.warn(f"not every dropout could be converted: {left}", stacklevel=3)


def _qualified(cls: type) -> str:
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"
