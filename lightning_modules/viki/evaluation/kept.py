"""Answers that were paid for, kept from a call of `viki evaluate` that did not end well."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...chunking.readers.chat_client import Completion


class KeptAnswers:
    """A file that every answer is added to, each under what was asked: model, prompts, pictures and limit.

    Args:
        file: JSON lines; what was cut off in it is passed over.
        asked_of: the server and its model.

    Attributes:
        taken: the questions whose answers an earlier call left in the file.
    """

    def __init__(self, file: Path, asked_of: str) -> None:
        self.file, self._asked_of, self.taken = file, asked_of, set[str]()
        self._known: dict[str, Completion] = {}
        text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self._known[row["asked"]] = Completion(str(row["text"]), bool(row["cut_off"]))
            except (ValueError, TypeError, KeyError):  # an empty line, or one that a kill cut off
                continue
        self._earlier = frozenset(self._known)

    def key(self, chat: Sequence[dict[str, Any]], max_new_tokens: int) -> str:
        """What stands for a question."""
        return hashlib.sha256(json.dumps([self._asked_of, chat, max_new_tokens]).encode()).hexdigest()

    def get(self, key: str) -> Completion | None:
        """The answer to a question that was asked before, in this call or an earlier one."""
        if key in self._earlier:
            self.taken.add(key)
        return self._known.get(key)

    def add(self, key: str, answer: Completion) -> None:
        """Keep an answer."""
        self._known[key] = answer
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a", encoding="utf-8") as file:  # the line feed first: a line that was cut off ends there
            file.write("\n" + json.dumps({"asked": key, "text": answer.text, "cut_off": answer.cut_off}))
