"""Made-up text in several languages: word lists of lexicons/*.yaml, put together by sentence patterns."""

from __future__ import annotations

import functools
import random
import re
from pathlib import Path
from typing import Any

import yaml

from ....registry import UserError

LEXICONS = Path(__file__).with_name("lexicons")
LANGUAGES = ("en", "de", "fr", "es")
"""ISO 639-1 codes of the languages that have a lexicon."""
_SLOT = re.compile(r"\{(\w+?)(\d?)\}")
_CODE_LETTERS = "ABCDEFGHKLMNPRSTVWX"


@functools.cache
def lexicon(language: str) -> dict[str, Any]:
    """The word lists and patterns of a language.

    Raises:
        UserError: there is none for this language.
    """
    if language not in LANGUAGES:
        raise UserError(f"no lexicon for the language '{language}'\nthere are: {', '.join(LANGUAGES)}")
    loaded: dict[str, Any] = yaml.safe_load((LEXICONS / f"{language}.yaml").read_text(encoding="utf-8"))
    return loaded


class Wording:
    """Draws words, sentences and numbers of one document, which keeps to one product and one model code.

    Args:
        rng: source of every choice.
        language: a code of `LANGUAGES`.
    """

    def __init__(self, rng: random.Random, language: str) -> None:
        self.rng = rng
        self.language = language
        self.words: dict[str, str] = lexicon(language)["words"]
        self.product: str = rng.choice(lexicon(language)["products"])
        self.model = self.code()
        self.year = rng.randint(2009, 2026)

    def choice(self, key: str) -> str:
        """One entry of a word list, its slots filled."""
        return self.filled(self.rng.choice(lexicon(self.language)[key]))

    def sample(self, key: str, count: int) -> list[str]:
        """Different entries of a word list, at most `count`."""
        entries: list[str] = lexicon(self.language)[key]
        return [self.filled(entry) for entry in self.rng.sample(entries, min(count, len(entries)))]

    def title(self, genre: str) -> str:
        """A title for a genre of the lexicon's `titles`."""
        patterns: list[str] = lexicon(self.language)["titles"][genre]
        return self.filled(self.rng.choice(patterns).replace("{code}", self.model))

    def column(self, key: str) -> str:
        """The heading of a table's column."""
        return str(lexicon(self.language)["columns"][key])

    def group(self, key: str) -> str:
        """The heading over a group of columns."""
        return str(lexicon(self.language)["groups"][key])

    def filled(self, pattern: str) -> str:
        """A pattern with its slots filled, beginning with a capital; equal slots differ where they are numbered."""
        used: dict[str, str] = {}

        def fill(found: re.Match[str]) -> str:
            word = self._slot(found[1])
            for _ in range(4):
                if word != used.get(found[1]):
                    break
                word = self._slot(found[1])
            used[found[1]] = word
            return word

        text = re.sub(r"\. (\w)", lambda m: f". {m[1].upper()}", _SLOT.sub(fill, pattern))
        return text[:1].upper() + text[1:]

    def sentence(self) -> str:
        """One sentence of running text."""
        return self.choice("sentences")

    def paragraph(self, min_chars: int, max_chars: int) -> str:
        """Sentences until `min_chars` are reached, none added that would go beyond `max_chars` once they are."""
        goal = self.rng.randint(min_chars, max_chars)
        text = self.sentence()
        while len(text) < goal:
            text += " " + self.sentence()
        return text

    def number(self, value: float, digits: int = 2) -> str:
        """A number with the language's decimal sign."""
        return f"{value:.{digits}f}".replace(".", str(lexicon(self.language)["decimal"]))

    def code(self) -> str:
        """A model or order code such as `KT-4180`."""
        letters = "".join(self.rng.choices(_CODE_LETTERS, k=self.rng.choice((1, 2, 2, 3))))
        return f"{letters}{self.rng.choice(('-', '-', ' ', ''))}{self.rng.randint(10, 9999)}"

    def _slot(self, name: str) -> str:
        rng = self.rng
        if name in ("product", "Product"):
            return self.product if name == "product" else self.product[:1].upper() + self.product[1:]
        lists = {"subject": "subjects", "object": "objects", "verb": "verbs", "adverbial": "adverbials"}
        lists |= {"opener": "openers", "month": "months"}
        if name in lists:
            return str(rng.choice(lexicon(self.language)[lists[name]]))
        if name == "value":
            unit = rng.choice(("bar", "kW", "mm", "Nm", "V"))
            return f"{self.number(rng.uniform(0.5, 90), rng.choice((0, 1, 1)))} {unit}"
        drawn = {
            "code": self.code,
            "percent": lambda: f"{rng.randint(3, 97)} %",
            "small": lambda: str(rng.randint(2, 9)),
            "number": lambda: str(rng.randint(100, 99999)),
            "year": lambda: str(self.year),
        }
        return drawn[name]()
