"""Whether this raftkv was compiled when it was installed (``RAFTKV_COMPILE=1``), or is run from its source.

A wheel has all the compiled modules that there are, or none: one of them tells of all.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec


def is_compiled() -> bool:
    """The modules that pyproject.toml names for it are machine code here. Loads none of them."""
    spec = find_spec("raftkv.replica")
    return spec is not None and spec.origin is not None and spec.origin.endswith(tuple(EXTENSION_SUFFIXES))
