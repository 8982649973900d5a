"""The words by which a text is searched: the same for the index on disk and for the evaluation.

Without case; English stop words (Lucene's 33) and the words that only make a text a question are left out, a plural's s
is taken off. In another language nothing but the s of some words changes.
"""

from __future__ import annotations

from ....datamodules.chunking.verbatim import tokens

_STOP = """
a an and are as at be but by for if in into is it no not of on or such that the their then there these they this to was
will with what which who whom whose when where why how do does did has have had were been from its than
"""
STOP_WORDS = frozenset(_STOP.split())


def words(text: str) -> list[str]:
    """Search words of a text, in order."""
    return [_singular(t) for t in tokens(text) if t not in STOP_WORDS]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
