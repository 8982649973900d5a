"""Word forms of English: plural, past tense, comparative and others, out of lemminflect's table (source `inflections`).

The table has no word frequencies, so "common" is a rule of ours: a lemma of 3 to 9 lower-case letters counts as common
if the table lists it as another part of speech too, or if other lemmas begin with it (walk: walker, walking); both
count, and `_FAMILY` of them are needed, `_FAMILY_IRREGULAR` for an irregular word. Words with two right forms (dove,
dived) are left out, except nouns that are also used without a plural (cakes, cake). The table is not cleared of vulgar
words.
"""

from __future__ import annotations

import bisect
import functools
import gzip
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..examples import Item
from .tables import asked, reading

SOURCE = "inflections"
_FAMILY = 2
_FAMILY_IRREGULAR = 1
_VOWELS = "aeiou"


@dataclass(frozen=True)
class _Ask:
    """One task: the part of speech, the column that answers, and how to ask ({word} is the lemma, or the form)."""

    pos: str
    column: int
    summary: str
    templates: tuple[str, str, str]
    backwards: bool = False  # the form is given and the lemma wanted


_ASKS = {
    "plural": _Ask(
        "noun",
        0,
        "the plural of a noun: mouse -> mice",
        (
            "What is the plural of the noun '{word}'?",
            "One {word}, two of them: which word?",
            "Write '{word}' in plural.",
        ),
    ),
    "past_tense": _Ask(
        "verb",
        0,
        "the past tense of a verb: go -> went",
        (
            "What is the past tense of the verb '{word}'?",
            "Today I {word}. Yesterday I did the same: which word?",
            "Put the verb '{word}' into the simple past.",
        ),
    ),
    "past_participle": _Ask(
        "verb",
        1,
        "the past participle of a verb: go -> gone",
        (
            "What is the past participle of the verb '{word}'?",
            "Which form of '{word}' follows 'have'?",
            "Write the verb '{word}' as it stands in the present perfect, without 'have'.",
        ),
    ),
    "present_participle": _Ask(
        "verb",
        2,
        "the -ing form of a verb: run -> running",
        (
            "What is the present participle of the verb '{word}'?",
            "Which form of '{word}' follows 'she is', for something that goes on now?",
            "Write the -ing form of '{word}'.",
        ),
    ),
    "third_person": _Ask(
        "verb",
        3,
        "the third person singular of a verb: try -> tries",
        (
            "What is the third person singular of the verb '{word}' in the present?",
            "I {word}, you {word}, and he does it too: which form follows 'he'?",
            "Write the verb '{word}' so that it agrees with 'she', in the present tense.",
        ),
    ),
    "comparative": _Ask(
        "adj",
        0,
        "the comparative of an adjective: big -> bigger",
        (
            "What is the comparative of the adjective '{word}'?",
            "This one is {word}, and that one even more so: which single word says it?",
            "Which form of '{word}' stands before 'than'?",
        ),
    ),
    "superlative": _Ask(
        "adj",
        1,
        "the superlative of an adjective: big -> biggest",
        (
            "What is the superlative of the adjective '{word}'?",
            "Of all of them, this one is {word} to the highest degree: which single word says it?",
            "Which form of '{word}' follows 'the' when nothing surpasses it?",
        ),
    ),
    "singular": _Ask(
        "noun",
        0,
        "the singular of a plural noun: mice -> mouse",
        ("What is the singular of '{word}'?", "Many {word}, but only one: which word?", "Write '{word}' in singular."),
        backwards=True,
    ),
    "base_form": _Ask(
        "verb",
        0,
        "the base form of a verb in the past tense: went -> go",
        (
            "What is the base form of the verb '{word}'?",
            "Yesterday they {word}; they want to do it again. Which word follows 'to'?",
            "Under which headword does a dictionary list the verb form '{word}'?",
        ),
        backwards=True,
    ),
}
TASKS = {name: ask.summary for name, ask in _ASKS.items()}


def make_items(name: str, folder: Path) -> list[Item]:
    """The items of one task; key = lemma.

    Args:
        name: one of `TASKS`.
        folder: the fetched source.

    Raises:
        UserError: if the table cannot be read.
    """
    ask = _ASKS[name]
    words = list(_common(folder / "infl_lu.csv.gz", ask.pos))
    lemmas, times = {lemma for lemma, _ in words}, Counter(forms[ask.column] for _, forms in words)
    items = []
    for lemma, forms in words:
        form = forms[ask.column]
        if ask.backwards and (times[form] > 1 or (form != lemma and form in lemmas)):
            continue  # found is the past of find, and a verb of its own
        word, answer = (form, lemma) if ask.backwards else (lemma, form)
        wrong = _misread(form, lemma, forms) if ask.backwards else _misspelt(name, lemma, answer, forms)
        items.append(asked(lemma, ask.templates, word, answer, wrong[:3]))
    return items


def _common(table: Path, pos: str) -> Iterator[tuple[str, list[str]]]:
    """(lemma, forms) of the common words of a part of speech, whose forms are single and differ from the lemma."""
    rows = _read(table)
    parts: dict[str, set[str]] = defaultdict(set)
    for lemma, part, _ in rows:
        parts[lemma].add(part)
    lemmas = sorted(parts)
    for lemma, part, forms in rows:
        if part != pos or not (3 <= len(lemma) <= 9 and _plain(lemma)):
            continue
        if pos == "verb" and len(forms) == 4 and not forms[1]:
            forms = [forms[0], forms[0], *forms[2:]]  # the table leaves out a participle that equals the past tense
        if pos == "noun" and forms[0].endswith(f"/{lemma}"):
            forms = [forms[0].removesuffix(f"/{lemma}")]  # also used without a plural, as in "some cake"
        if len(forms) != {"noun": 1, "verb": 4, "adj": 2}[pos] or not all(_plain(form) for form in forms):
            continue
        if forms[0] == lemma and pos != "verb":
            continue
        begins = bisect.bisect_left(lemmas, lemma + "\uffff") - bisect.bisect_left(lemmas, lemma) - 1
        regular = forms[0] in _naive(
            "plural" if pos == "noun" else "past_tense" if pos == "verb" else "comparative", lemma
        )
        needed = _FAMILY if regular and pos != "adj" else _FAMILY_IRREGULAR
        if begins + len(parts[lemma]) - 1 >= needed:
            yield lemma, forms


@functools.lru_cache(maxsize=1)
def _read(table: Path) -> list[tuple[str, str, list[str]]]:
    with reading(table, SOURCE), gzip.open(table, "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split(",") for line in file]
    return [(row[0], row[1], row[2:]) for row in rows if len(row) > 2]


def _plain(word: str) -> bool:
    return word.isascii() and word.isalpha() and word.islower()


def _naive(name: str, lemma: str) -> list[str]:
    """What someone who knows only the regular rules might write, right or wrong, most likely first."""
    ending = {
        "plural": "s",
        "third_person": "s",
        "present_participle": "ing",
        "comparative": "er",
        "superlative": "est",
    }.get(name, "ed")
    cut = lemma[:-1]
    doubled = lemma + lemma[-1] + ending
    if ending == "s":
        ies = [cut + "ies"] if lemma.endswith("y") else []
        ves = [cut + "ves"] if lemma.endswith("f") else [lemma[:-2] + "ves"] if lemma.endswith("fe") else []
        return [*ies, *ves, lemma + "s", lemma + "es", lemma + "ses" if lemma.endswith("s") else lemma + "'s"]
    if lemma.endswith("e"):
        return [cut + ending, lemma + ending, cut + cut[-1] + ending]
    if lemma.endswith("y") and ending != "ing":
        return [cut + "i" + ending, lemma + ending, cut + ending]
    if lemma[-1] not in _VOWELS and lemma[-2] in _VOWELS:
        return [doubled, lemma + ending, lemma + "e" + ending if ending == "ing" else lemma + "i" + ending]
    return [lemma + ending, doubled, lemma + "e" + ending if ending == "ing" else lemma + "i" + ending]


def _misspelt(name: str, lemma: str, answer: str, forms: list[str]) -> list[str]:
    """At least three wrong forms: the lemma itself, then other forms of it and wrong regularisations in turn.

    The lemma is there because it is shorter than the answer: a model that knows nothing prefers the shortest choice.
    """
    naive, others = _naive(name, lemma), [form for form in forms if form != answer]
    mixed = [word for pair in zip(others or naive, naive, strict=False) for word in pair]
    return list(dict.fromkeys(word for word in [lemma, *mixed, *naive, *others, lemma + "en"] if word != answer))


def _misread(form: str, lemma: str, forms: list[str]) -> list[str]:
    """At least three words that are not the lemma of `form`: cut too short, the form itself, then other wrong cuts and
    forms. The first is shorter than the lemma and the second longer, so that a guess by length does not pay.
    """
    cuts = [form[:-3], form, *forms[2:3], form[:-1], form[:-2], form[:-2] + "e", form[:-3] + "y", form + "e"]
    return list(dict.fromkeys(word for word in cuts if len(word) > 1 and word != lemma))
