"""Registered commands as programs: what may be written on the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fulgurite.launch import command_line
from fulgurite.registry import UserError


def test_needed_arguments_may_stand_first_without_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(run: object, film: Path, out: Path, size: int = 3) -> None:
        """Note what is given."""
        seen.append((film, out, size))

    seen: list[tuple[Path, Path, int]] = []
    monkeypatch.setattr(command_line, "COMMANDS", {"some command": command})
    given = (Path("a.mp4"), Path("b"))
    for line in ("a.mp4 b --size 4", "a.mp4 --out b --size 4", "--out b --film a.mp4 --size 4"):
        command_line.run_command("some command", line.split())
        assert seen.pop() == (*given, 4)
    with pytest.raises(UserError, match="nrecognized arguments: c"):
        command_line.run_command("some command", ["a.mp4", "b", "c"])
