"""A user's own examples as JSON lines: `prompt`, `response`, and `choices` where there are some."""

from __future__ import annotations

from pathlib import Path

from ....registry import UserError, nearest
from ..examples import Example, Item, Task, build_task, finish_task, split_of
from ..json_lines import read_objects, text_field

_WHAT = 'examples, one a line: {"prompt": ..., "response": ..., "choices": [...]}'


def load(name: str, path: Path, *, limit: int | None, seed: int) -> Task:
    """The task of a JSONL file.

    `X.train.jsonl` is read together with `X.test.jsonl`, and with `X.val.jsonl` if it is there (otherwise a tenth of
    the training prompts, by sha1); training prompts that are also tested on are left out. Each of them may be packed,
    as `X.train.jsonl.xz`. Any other file is split
    80/10/10 by the sha1 of the prompt. Repeated examples are dropped.

    Raises:
        UserError: no such file, a bad line or field (the text names file and line), or too few examples.
    """
    stem = path.name.removesuffix(".xz").removesuffix(".train.jsonl")
    if stem == path.name.removesuffix(".xz"):
        items = [Item(e.prompt, (e.prompt,), e.response, e.choices) for e in read_examples(path)]
        return build_task(
            name, items, source=path.name, licence="the user's own", limit=limit, seed=seed, shuffle_choices=False
        )
    test_file, val_file = _beside(path, f"{stem}.test.jsonl"), _beside(path, f"{stem}.val.jsonl")
    if not test_file.is_file():
        raise UserError(
            f"{path.name} needs {test_file.name} beside it\nOr give one file with another ending than .train.jsonl"
        )
    test = read_examples(test_file)
    val = read_examples(val_file) if val_file.is_file() else []
    held = {example.prompt for example in (*test, *val)}
    rest = [example for example in read_examples(path) if example.prompt not in held]
    if not rest:
        raise UserError(f"{path}: every prompt is also in {test_file.name}: nothing is left to train on")
    train = rest
    if not val_file.is_file():
        val = [example for example in rest if split_of(example.prompt) == "val"]
        train = [example for example in rest if split_of(example.prompt) != "val"]
    return finish_task(
        name, tuple(train), tuple(val), tuple(test), source=path.name, licence="the user's own", limit=limit
    )


def _beside(path: Path, name: str) -> Path:
    """The file of that name in the same folder, packed or not; the unpacked name if there is neither."""
    packed = path.with_name(f"{name}.xz")
    return packed if packed.is_file() and not path.with_name(name).is_file() else path.with_name(name)


def read_examples(path: Path) -> list[Example]:
    """The distinct examples of a JSONL file, in its order.

    Raises:
        UserError: as `load`.
    """
    found: dict[tuple[str, str], Example] = {}
    for line, row in read_objects(path, _WHAT):
        where = f"{path}:{line}"
        prompt, response = text_field(row, "prompt", where), text_field(row, "response", where)
        choices = row.get("choices") or []
        for key in row:
            if key not in ("prompt", "response", "choices") and nearest(key, ["choices"]):
                raise UserError(f"{where}: field '{key}': did you mean 'choices'?")
        if not isinstance(choices, list):
            raise UserError(f"{where}: field 'choices' is a {type(choices).__name__}, and has to be a list of texts")
        texts = tuple(text_field({"choices": choice}, "choices", where) for choice in choices)
        if texts and response not in texts:
            raise UserError(f"{where}: the response '{response[:60]}' is not among the choices")
        found.setdefault((prompt, response), Example(prompt, response, tuple(dict.fromkeys(texts))))
    return list(found.values())
