"""Plans as text: what the released reward code reads out of a model's answer (arXiv 2506.09049, appendix on rewards).

A plan is a list of steps; a step maps a robot's name to its command, one string `Move,apple` as the checker reads it.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Step = dict[Any, str]
MAX_ANSWER_CHARS = 1_000_000
"""A longer answer is no plan: reading it would take seconds and gigabytes."""
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.UAdd: operator.pos, ast.USub: operator.neg,
    ast.Not: operator.not_, ast.Invert: operator.invert,
}  # fmt: skip


def find_answer(text: str) -> str | None:
    """What stands between the first `<answer>` and the next `</answer>`, stripped; None where there is no such pair."""
    start = text.find("<answer>")
    end = text.find("</answer>", start + 8) if start >= 0 else -1
    return None if end < 0 else text[start + 8 : end].strip()


def has_think_then_answer(text: str) -> bool:
    """Whether the text begins with `<think>` and goes on with `</think>`, `<answer>` and `</answer>` in this order."""
    place = 0
    for number, tag in enumerate(("<think>", "</think>", "<answer>", "</answer>")):
        found = text.find(tag, place)
        if found < 0 or (number == 0 and found > 0):
            return False
        place = found + len(tag)
    return True


def literal(text: str) -> Any:
    """The Python literal that a text writes.

    Raises:
        ValueError: if it is none, or too long or too deep to read.
    """
    if len(text) > MAX_ANSWER_CHARS:
        raise ValueError(f"longer than {MAX_ANSWER_CHARS} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a stray backslash in a string
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def reads_as_list_or_dict(text: str) -> bool:
    """Whether the released format reward takes an answer for a list or dict, doubled braces undone.

    The released code runs what is no literal with `eval`. Text of a model is not run here: operators and conditions
    over literals are worked out (`[1 + 1]`), anything with names, calls or comprehensions counts as unreadable.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return False
    opening = text.find("{{")
    if opening >= 0 and text.find("}}", opening + 2) >= 0:
        text = text.replace("{{", "{").replace("}}", "}")
    try:
        return isinstance(literal(text), list | dict)
    except ValueError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return isinstance(_evaluate(ast.parse(text.strip(), mode="eval").body), list | dict)
    except (ValueError, SyntaxError, TypeError, ArithmeticError, MemoryError, RecursionError):
        return False


def _evaluate(node: ast.expr) -> Any:
    """Work out an expression of literals, displays and operators.

    Raises:
        ValueError: if it has anything else, or would grow without bound.
    """
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        items = [_evaluate(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items) if isinstance(node, ast.Tuple) else set(items)
    if isinstance(node, ast.Dict):
        if None in node.keys:
            raise ValueError("unpacking")
        keys = [_evaluate(key) for key in node.keys if key is not None]
        return dict(zip(keys, map(_evaluate, node.values), strict=True))
    if isinstance(node, ast.UnaryOp):
        return _OPERATORS[type(node.op)](_evaluate(node.operand))
    if isinstance(node, ast.IfExp):
        return _evaluate(node.body if _evaluate(node.test) else node.orelse)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left), _evaluate(node.right)
        if any(isinstance(side, int) and side.bit_length() > 64 for side in (left, right)):
            raise ValueError("a number too large")
        if isinstance(node.op, ast.Mult | ast.Mod) and not all(isinstance(s, int | float) for s in (left, right)):
            raise ValueError("a repeated or formatted text or list")
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError(f"{type(node).__name__} is not worked out")


def steps_of(data: Any) -> list[Step]:
    """The steps of a plan as released code takes them: [{step, actions: {robot: [primitive, target, ...]}}, ...].

    Steps that are no dict, and steps without an action, are left out; step numbers are ignored. An action that can't be
    joined to one command makes the whole plan empty.
    """
    if not isinstance(data, list):
        return []
    steps = []
    for row in data:
        actions = row.get("actions", {}) if isinstance(row, dict) else None
        if isinstance(actions, dict) and actions:
            try:
                steps.append({robot: ",".join(words) for robot, words in actions.items()})
            except TypeError:
                return []
    return steps


def rows_of(steps: Iterable[Mapping[str, str]]) -> list[dict[str, Any]]:
    """The released form of a plan: [{"step": 1, "actions": {"R1": ["Move", "apple"]}}, ...]."""
    return [
        {"step": number, "actions": {robot: command.split(",") for robot, command in sorted(step.items())}}
        for number, step in enumerate(steps, 1)
    ]


def one_at_a_time(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same plan with one robot acting in a step, in the order of their names; rows as `rows_of` gives them."""
    acts = [
        {robot: list(words)} for row in rows for robot, words in sorted(row["actions"].items()) if words is not None
    ]
    return [{"step": number, "actions": act} for number, act in enumerate(acts, 1)]
