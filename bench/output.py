"""Results and errors in a form that can be published."""

import json
import re
from pathlib import Path
from typing import Any


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Indented, with a newline at the end, so that published results diff well."""
    file.write_text(json.dumps(content, indent=1) + "\n")


def brief(error: Exception) -> str:
    """Type and first line of an error, folders left out of the paths in it."""
    text = f"{type(error).__name__}: {error}".splitlines()[0]
    return re.sub(r"/[^\s'\"]*/", "", text)
