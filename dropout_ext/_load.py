"""Whether the extension is built, and fits the torch that is running; checked before it loads."""

import importlib
from types import ModuleType


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


def check_torch_version(built_for: str, running: str) -> None:
    """Raises ImportError if the extension was built for another minor version of torch.

    Args:
        built_for: ``torch.__version__`` at build time.
        running: ``torch.__version__`` now.

    Raises:
        ImportError: naming both versions and the command that rebuilds the extension.
    """
    if _minor(built_for) != _minor(running):
        raise ImportError(
            f"dropout_ext was built for torch {built_for}, but torch {running} is running. "
            "Rebuild it in its source folder: "
            "pip install --no-build-isolation --no-deps --force-reinstall ."
        )


def load_build() -> ModuleType:
    """The facts that the build wrote down.

    Raises:
        ImportError: if this is a source tree in which nothing was built.
    """
    try:
        return importlib.import_module("dropout_ext._build")
    except ModuleNotFoundError:
        raise ImportError(
            "dropout_ext is not built here. Build it in its source folder: "
            "pip install --no-build-isolation . (or, to work on it, "
            "python setup.py build_ext --inplace)"
        ) from None
