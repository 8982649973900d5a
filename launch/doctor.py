"""`fulgurite doctor`: this machine, its versions, and what of each paper can run here."""

from __future__ import annotations


def missing_package(module: str) -> str:
    """Sentence and pip command for a module that is not installed."""
    return f"{module} is missing"
