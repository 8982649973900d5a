"""The page: its tabs, its look, and how it is served."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...registry import UserError
from .tab import Tab

# gradio asks its authors' server for its newest version, and counts its users, unless told not to before the import
SILENT = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GRADIO_SSR_MODE": "False",
}
MAX_UPLOAD = "64mb"
STYLE = """
iframe.view { width: 100%; height: 76vh; border: 1px solid #8888; border-radius: 6px; background: #fff; }
.found pre { white-space: pre-wrap; font-size: 13px; }
"""


def blocks(tabs: Sequence[Tab]) -> Any:
    """The page's gradio Blocks; a tab that lacks a package says which."""
    import gradio

    with gradio.Blocks(title="fulgurite", analytics_enabled=False) as page:
        gradio.Markdown("# fulgurite\nFive papers of June 2025, on small weights, on this machine alone.")
        for tab in tabs:
            with gradio.Tab(tab.title, id=tab.name):
                if missing := tab.missing():
                    gradio.Markdown(missing)
                    continue
                try:
                    tab.build()
                except UserError as error:
                    gradio.Markdown(f"This tab can't be shown:\n\n    {error}")
                    continue
                gradio.Markdown(f"The paper: arXiv {tab.paper}")
    return page


@contextmanager
def served(tabs: Sequence[Tab], host: str = "127.0.0.1", port: int | None = None) -> Iterator[str]:
    """Serve the page while the block runs; gives its address. What visitors upload is gone afterwards."""
    for name, value in SILENT.items():
        os.environ[name] = value
    with tempfile.TemporaryDirectory(prefix="fulgurite-demo-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "uploads")
        import gradio

        page = blocks(tabs).queue(default_concurrency_limit=4, max_size=40)
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, show_error=True,
            max_file_size=MAX_UPLOAD, css=STYLE, theme=gradio.themes.Default(font=["system-ui", "sans-serif"],
            font_mono=["ui-monospace", "monospace"]), footer_links=[], enable_monitoring=False,
        )  # fmt: skip
        try:
            yield address
        finally:
            page.close()
