"""The paper's judge (arXiv 2506.16035, its evaluation): given a question, the search results and an answer, plain JSON.

`is_answer_exist`: whether the sources hold the answer, directly or by inference; `response_quality`: `correct`,
`hallucinate` or `abstain`; `answer_ids`: numbers of the chunks that were used or should have been, none if it is not
there. As in the paper the judge is not told the annotators' answer, so it measures faithfulness to the sources more
than truth. A reply that is no such JSON is asked for again, with what was wrong.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, get_args

from ..readers.chat_client import ChatClient, Message
from ..retrieval.command import ANSWER_TOKENS, answer_prompt
from .contexts import Context

Quality = Literal["correct", "hallucinate", "abstain"]
QUALITIES: tuple[Quality, ...] = get_args(Quality)
TEMPERATURE = 0.1
JUDGE_TOKENS = 300
ATTEMPTS = 3
_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What the judge says of an answer.

    Attributes:
        is_answer_exist: whether the sources hold the answer.
        response_quality: correct, hallucinate or abstain.
        answer_ids: numbers of chunks, from 1.
    """

    is_answer_exist: bool
    response_quality: Quality
    answer_ids: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """A question's answer with its verdict.

    Attributes:
        answer: what the answering model wrote.
        verdict: the judge's; None if none of `ATTEMPTS` replies was one.
        attempts: how often the judge was asked.
        problem: what was wrong with its last reply; empty if nothing.
    """

    answer: str
    verdict: Verdict | None
    attempts: int
    problem: str


def judge(context: Context, answerer: ChatClient, judger: ChatClient) -> Judged:
    """Have a question answered from its chunks and the answer judged.

    Raises:
        UserError: what a server's refusal or a spent budget leads to.
    """
    asked: list[Message] = [{"role": "user", "content": answer_prompt(context.question, context.texts)}]
    answer = answerer.complete(asked, TEMPERATURE, ANSWER_TOKENS).text.strip()
    messages: list[Message] = [{"role": "user", "content": judge_prompt(context, answer)}]
    problem = ""
    for attempt in range(1, ATTEMPTS + 1):
        reply = judger.complete(messages, TEMPERATURE, JUDGE_TOKENS).text
        try:
            return Judged(answer, parse_verdict(reply, len(context.texts)), attempt, "")
        except ValueError as error:
            problem = str(error)
            messages += [
                {"role": "assistant", "content": reply},
                {"role": "user", "content": f"This can't be read: {problem}. Reply with the JSON object alone."},
            ]
    return Judged(answer, None, ATTEMPTS, problem)


def judge_prompt(context: Context, answer: str) -> str:
    """What the judge is asked."""
    sources = "\n\n".join(f"[{number}]\n{text}" for number, text in enumerate(context.texts, 1))
    return (
        "You check an answer that was written from search results.\n\n"
        f"Question: {context.question}\n\nSearch results:\n\n{sources}\n\nAnswer: {answer}\n\n"
        "Reply with one JSON object and nothing else, with these three fields:\n"
        '"is_answer_exist": true if the search results hold the answer, directly or by inference, else false;\n'
        '"response_quality": "correct" if the answer is right by the search results, "hallucinate" if it says what '
        'they do not support, "abstain" if it says that it can not tell;\n'
        '"answer_ids": the numbers of the search results that were used or should have been, [] if none holds it.'
    )


def parse_verdict(reply: str, num_sources: int) -> Verdict:
    """The verdict in a reply, which may have words or a code fence around it.

    Raises:
        ValueError: if there is none; says what is wrong.
    """
    found = _OBJECT.search(reply)
    if found is None:
        raise ValueError("there is no JSON object")
    try:
        held: Any = json.loads(found[0])
    except (ValueError, RecursionError):
        raise ValueError("it is no valid JSON") from None
    exists, quality, ids = (held.get(k) for k in ("is_answer_exist", "response_quality", "answer_ids"))
    if not isinstance(exists, bool):
        raise ValueError("is_answer_exist is not true or false")
    if quality not in QUALITIES:
        raise ValueError(f"response_quality is none of {', '.join(QUALITIES)}")
    if not isinstance(ids, list) or not all(type(n) is int and 1 <= n <= num_sources for n in ids):
        raise ValueError(f"answer_ids is not a list of numbers from 1 to {num_sources}")
    return Verdict(exists, quality, tuple(dict.fromkeys(ids)))
