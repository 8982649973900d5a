"""Countries: capital, continent, currency, out of GeoNames' table (source `countries`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..examples import Item
from .tables import asked, reading, wrong_answers

SOURCE = "countries"
_MIN_POPULATION = 100_000
# the capital is disputed, shared between cities, or moving: no single right answer
_NO_SINGLE_CAPITAL = {"IL", "PS", "EH", "BO", "ZA", "GQ", "TW", "LK", "CI", "TZ", "ID"}
_DISSOLVED = {"AN", "CS"}  # the Netherlands Antilles, Serbia and Montenegro
_CONTINENTS = {
    "AF": "Africa",
    "AN": "Antarctica",
    "AS": "Asia",
    "EU": "Europe",
    "NA": "North America",
    "OC": "Oceania",
    "SA": "South America",
}
TASKS = {
    "capital_of": "the capital of a country: France -> Paris",
    "country_of": "the country of a capital: Paris -> France",
    "continent_of": "the continent of a country, out of seven: France -> Europe",
    "currency_of": "the currency of a country: France -> Euro",
}
_TEMPLATES = {
    "capital_of": (
        "What is the capital of {word}?",
        "Which city is the capital of {word}?",
        "Name the city from which {word} is governed.",
    ),
    "country_of": (
        "{word} is the capital of which country?",
        "Which country is governed from {word}?",
        "Name the country whose capital is {word}.",
    ),
    "continent_of": (
        "On which continent is {word}?",
        "Which continent does {word} belong to?",
        "Name the continent of {word}.",
    ),
    "currency_of": (
        "What is the currency of {word}?",
        "What do people in {word} pay with?",
        "Name the money of {word}.",
    ),
}


def make_items(name: str, folder: Path) -> list[Item]:
    """The items of one task; key = country.

    Args:
        name: one of `TASKS`.
        folder: the fetched source.

    Raises:
        UserError: if the table cannot be read.
    """
    countries = _read(folder / "countries.json")
    if name in ("capital_of", "country_of"):
        countries = [c for c in countries if c["iso"] not in _NO_SINGLE_CAPITAL and not _names_itself(c)]
    answers = {c["iso"]: _answer(name, c) for c in countries}
    items = []
    for country in countries:
        answer = answers[country["iso"]]
        if not answer:
            continue
        if name == "continent_of":
            wrong = [c for c in _CONTINENTS.values() if c != answer]
        else:
            near = [c for c in countries if c["continentcode"] == country["continentcode"]]
            wrong = wrong_answers(answer, [answers[c["iso"]] for c in near], answers.values(), country["iso"])
        word = country["capital"].strip() if name == "country_of" else _with_article(country["name"])
        items.append(asked(country["name"], _TEMPLATES[name], word, answer, wrong))
    return items


def _answer(name: str, country: dict[str, Any]) -> str:
    if name == "continent_of":
        return _CONTINENTS[country["continentcode"]]
    column = {"capital_of": "capital", "country_of": "name", "currency_of": "currencyname"}[name]
    return str(country[column]).strip()


def _names_itself(country: dict[str, Any]) -> bool:
    """Whether the question would hold its answer, as with Singapore and Mexico City, or has none."""
    capital = country["capital"].strip()
    return not capital or capital in country["name"] or country["name"] in capital


def _with_article(country: str) -> str:
    plural = country.endswith(("Islands", "States", "Emirates", "Netherlands", "Philippines", "Maldives", "Bahamas"))
    return f"the {country}" if plural or " Republic" in country else country


def _read(table: Path) -> list[dict[str, Any]]:
    with reading(table, SOURCE):
        countries = json.loads(table.read_text(encoding="utf-8")).values()
        kept = [c for c in countries if c["population"] >= _MIN_POPULATION and c["iso"] not in _DISSOLVED]
        return [{**c, "name": c["name"].strip()} for c in kept]
