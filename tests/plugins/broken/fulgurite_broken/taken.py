"""Takes a name that fulgurite itself has."""

from fulgurite.registry import MODELS


@MODELS.register("hello")
class HelloModule:
    """Not the one you look for."""
