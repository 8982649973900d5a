"""Rows in columns: fitted to a terminal, and one line a row, unwrapped, in a file or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def print_table(rows: Sequence[Sequence[str]], header: Sequence[str] = (), indent: int = 0) -> None:
    """Print rows below a header, if there is one; rows may differ in length."""
    if not sys.stdout.isatty():
        lines = [list(header), *rows] if header else list(rows)
        widths = [max(len(row[n]) for row in lines if n < len(row)) for n in range(max(map(len, lines), default=0))]
        for row in lines:
            print(
                (" " * indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False))).rstrip()
            )
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table

    table = Table(box=None, show_header=bool(header), header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    for name in header or [""] * max(map(len, rows), default=0):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(highlight=False, markup=False).print(Padding(table, (0, 0, 0, indent)), markup=False)
