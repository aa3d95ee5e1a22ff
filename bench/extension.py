"""The one place where the package under measurement is imported.

``python -m bench`` puts the checkout first on sys.path, and there the folder ``dropout_ext`` holds
sources. Unless the extension was built in place, the installed package is the one to measure, so
the checkout steps aside.
"""

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
"""The folder that holds ``bench`` (never printed: outputs carry no paths)."""

if not any((CHECKOUT / "dropout_ext" / f"_C{suffix}").exists() for suffix in EXTENSION_SUFFIXES):
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != CHECKOUT]

try:
    import dropout_ext
except ModuleNotFoundError as error:
    if error.name != "dropout_ext":
        raise
    raise SystemExit(
        "dropout_ext is not installed: run `pip install --no-build-isolation .` in the checkout"
    ) from None

__all__ = ["CHECKOUT", "dropout_ext"]
