"""The paper's five classes of questions (arXiv 2506.16035, its evaluation), by a rule that anyone can repeat.

The paper names factual, cross-table, procedural, multi-section and structural questions and gives no definition. Here,
in this order, the first that holds:

1. procedural: the category says procedure, or the question asks how something is done, for steps, an order or what
   comes before or after;
2. structural: the category says layout, or it asks about the document's own parts: pages, sections, chapters, figures
   and tables by number, footnotes, how many of them, or a title;
3. cross-table: its evidence is a table, and it lies on more than one page, or the answer is derived from it, or the
   table began on an earlier page;
4. multi-section: its evidence lies on more than one page;
5. factual: all others.
"""

from __future__ import annotations

import re
from typing import Literal, get_args

from .question import Question

QuestionClass = Literal["factual", "cross-table", "procedural", "multi-section", "structural"]
CLASSES: tuple[QuestionClass, ...] = get_args(QuestionClass)

_PROCEDURAL = re.compile(
    r"\bhow (?:to|do|can|should)\b(?! (?:many|much|often|long))|\bsteps?\b|\bprocedure\b|\binstructions?\b"
    r"|\bin (?:what|which) order\b|\bwhat (?:should|must) (?:i|you|one|be done)\b|\b(?:before|after) (?:you|pressing)\b"
)
_STRUCTURAL = re.compile(
    r"\b(?:section|chapter|appendix|figure|fig\.|table|page|slide)s? (?:\d+|[ivx]+\b|[a-f]\b)"
    r"|\bhow many (?:\w+ )?(?:sections|chapters|figures|tables|pages|slides|charts|footnotes|appendices|references)\b"
    r"|\b(?:which|what) (?:section|chapter|page|figure|appendix)\b|\btitle of\b"
)
_TABLE = ("table", "financial")


def classify(question: Question) -> QuestionClass:
    """The class of a question."""
    asked, category = question.question.lower(), question.category.lower()
    if "procedure" in category or _PROCEDURAL.search(asked):
        return "procedural"
    if "layout" in category or _STRUCTURAL.search(asked):
        return "structural"
    on_table = question.cell is not None or any(word in category for word in _TABLE)
    several = len(set(question.pages)) > 1
    goes_on = question.cell is not None and question.cell.page_kind != "first page"
    if on_table and (several or goes_on or question.mode == "derived"):
        return "cross-table"
    return "multi-section" if several else "factual"
