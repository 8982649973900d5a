"""Two-letter codes of languages and countries, out of the ISO tables (source `languages`)."""

from __future__ import annotations

import json
from pathlib import Path

from ..examples import Item
from .tables import asked, reading, wrong_answers

SOURCE = "languages"
TASKS = {
    "language_code": "the two-letter ISO 639 code of a language: German -> de",
    "country_code": "the two-letter ISO 3166 code of a country: Germany -> DE",
}
_TABLES = {"language_code": ("iso639-3.json", "639-3"), "country_code": ("iso3166-1.json", "3166-1")}
_TEMPLATES = {
    "language_code": (
        "What is the two-letter ISO 639 code of the language {word}?",
        "Which two letters stand for {word} in a language tag?",
        "Abbreviate the language {word} as ISO 639-1 does.",
    ),
    "country_code": (
        "What is the two-letter ISO 3166 code of {word}?",
        "Which two letters stand for {word} in international country codes?",
        "Abbreviate the country {word} as ISO 3166 does.",
    ),
}


def make_items(name: str, folder: Path) -> list[Item]:
    """The items of one task; key = language or country.

    Args:
        name: one of `TASKS`.
        folder: the fetched source.

    Raises:
        UserError: if the table cannot be read.
    """
    file, table = _TABLES[name]
    with reading(folder / file, SOURCE):
        rows = json.loads((folder / file).read_text(encoding="utf-8"))[table]
        codes = {row.get("common_name", row["name"]): row["alpha_2"] for row in rows if "alpha_2" in row}
    items = []
    for full, code in codes.items():
        word = full.partition(" (")[0].partition(",")[0]
        alike = [c for c in codes.values() if c[0] == code[0]]
        items.append(asked(word, _TEMPLATES[name], word, code, wrong_answers(code, alike, codes.values(), full)))
    return items
