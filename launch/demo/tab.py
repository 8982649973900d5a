"""What a tab of the demo page is, and what stands in the place of one that can't be shown here."""

from __future__ import annotations

import functools
import html
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ...registry import UserError, install_line

Given = TypeVar("Given", bound=Callable[..., Any])


@dataclass(frozen=True)
class Tab:
    """A tab.

    Attributes:
        name: of the tab, and for `--tabs`.
        title: on its button.
        paper: arXiv id.
        extra: of this package, which installs what the tab needs.
        modules: imported names that the extra brings.
        build: makes the tab's content, inside gradio's context.
        warm_up: loads what the first visitor would wait for; may raise UserError.
    """

    name: str
    title: str
    paper: str
    extra: str
    modules: tuple[str, ...]
    build: Callable[[], None]
    warm_up: Callable[[], object]

    def missing(self) -> str:
        """What is to be installed before the tab can be shown, as a sentence; empty if nothing."""
        absent = [name for name in self.modules if importlib.util.find_spec(name) is None]
        if not absent:
            return ""
        return f"This tab needs {', '.join(absent)}:\n\n    {install_line(self.extra)}"


def told(action: Given) -> Given:
    """Let a user's mistake in an action appear on the page as a sentence, and nothing else stop it."""

    @functools.wraps(action)
    def call(*given: Any) -> Any:
        import gradio

        try:
            return action(*given)
        except UserError as error:
            raise gradio.Error(str(error), print_exception=False) from None

    return call  # type: ignore[return-value]


def framed(title: str, page: str, scripts: bool = False) -> str:
    """A whole page in a frame of the tab's, cut off from it; it runs nothing unless it has `scripts` of its own."""
    may = "allow-scripts" if scripts else ""
    return f'<iframe title="{title}" sandbox="{may}" class="view" srcdoc="{html.escape(page, quote=True)}"></iframe>'
