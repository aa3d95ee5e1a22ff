"""What a conversion did."""

import warnings
from dataclasses import dataclass, field


@dataclass
class ConversionReport:
    """Filled by :func:`convert_dropout` and :func:`revert_dropout`.

    The keys are qualified names; the model itself has the name ``""``.

    Attributes:
        changed: each module that was changed, to its class before and after. Two classes of one
            name are those of a module whose calls of functional dropout are redirected.
        notes: some of these modules, to what more there is to say.
        unchanged: each module with a dropout that was left as it is, to the reason.
        not_understood: each module, attribute or method whose name or code looks like a dropout,
            to what was found. It may drop by torch's random numbers, or not at all.
    """

    changed: dict[str, tuple[type, type]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    unchanged: dict[str, str] = field(default_factory=dict)
    not_understood: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            _line(name, _change(before, after), self.notes.get(name))
            for name, (before, after) in self.changed.items()
        ]
        return "\n".join(lines + self._rest("left, ")) or "no dropout found"

    def warn_of_the_rest(self) -> None:
        """One warning for all that was left as it is, or not understood."""
        if rest := "; ".join(self._rest()):
            warnings.warn(f"not every dropout could be converted: {rest}", stacklevel=3)

    def _rest(self, left: str = "") -> list[str]:
        return [
            *(_line(name, left + why) for name, why in self.unchanged.items()),
            *(_line(name, f"not understood, {what}") for name, what in self.not_understood.items()),
        ]


def _line(name: str, what: str, note: str | None = None) -> str:
    return f"{name or 'the model'}: {what}" + (f" ({note})" if note else "")


def _change(before: type, after: type) -> str:
    names = [_qualified(before), _qualified(after)]
    return names[0] if names[0] == names[1] else " -> ".join(names)


def _qualified(cls: type) -> str:
    return f"{cls.__module__.split('.')[0]}.{cls.__qualname__}"
