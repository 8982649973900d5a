"""OpenGL without a display: EGL, or OSMesa, whichever this machine has."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

from ....registry import UserError

PLATFORMS = {
    "egl": (("libEGL.so.1", "libEGL.so"), "libegl1 libegl-mesa0 libgl1-mesa-dri"),
    "osmesa": (("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"), "libosmesa6"),
}
"""How MuJoCo calls each way -> the shared libraries, one of which it needs, and Debian's packages that bring them."""


def find_platform(load: Callable[[str], object] = ctypes.CDLL) -> str | None:
    """`egl` or `osmesa`, or what `MUJOCO_GL` asks for of the two; None if the machine has the libraries of neither.

    Args:
        load: opens a shared library by its name, or raises OSError.
    """
    asked = os.environ.get("MUJOCO_GL", "").lower()
    for platform in [asked] if asked in PLATFORMS else PLATFORMS:
        for library in PLATFORMS[platform][0]:
            try:
                load(library)
            except OSError:
                continue
            return platform
    return None


def missing_message() -> str:
    """What is missing where there is no OpenGL, and the command that brings it."""
    either = "   or:   ".join(f"apt-get install {packages}" for _, packages in PLATFORMS.values())
    return f"this machine has no OpenGL without a display (EGL or OSMesa), which the pictures need\n{either}"


def use_platform() -> str:
    """Choose the way and tell it to MuJoCo; to be called before mujoco is first imported.

    Raises:
        UserError: if there is none; names the packages to install.
    """
    if not sys.platform.startswith("linux"):
        return "native"
    platform = find_platform()
    if platform is None:
        raise UserError(missing_message())
    if "mujoco" not in sys.modules:
        os.environ.setdefault("MUJOCO_GL", platform)
    return platform


def make_context(width: int, height: int) -> Any:
    """An OpenGL context of MuJoCo's, made current, for pictures of up to that size.

    Raises:
        UserError: if the libraries are there but give no context; names the packages to install.
    """
    platform = use_platform()
    try:
        if platform == "egl":
            from mujoco import egl as module
        elif platform == "osmesa":
            from mujoco import osmesa as module
        else:
            from mujoco import gl_context as module
        context = module.GLContext(width, height)
        context.make_current()
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise UserError(f"OpenGL ({platform}) gave no picture: {error}\n{missing_message()}") from None
    return context
