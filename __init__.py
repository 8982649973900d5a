"""fulgurite: recent papers as PyTorch Lightning experiments that run from YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "build", "run"]

if TYPE_CHECKING:
    from .launch.python_api import build, run


def __getattr__(name: str) -> Any:
    """`fulgurite.run` and `fulgurite.build` come with torch, so they are imported when first asked for."""
    if name in ("build", "run"):
        from .launch import python_api

        return getattr(python_api, name)
    raise AttributeError(f"module 'fulgurite' has no attribute {name!r}")
