"""The command `viki solve`: a picture and an instruction to a policy's answer, and what the checker says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from ...datamodules.viki.checker import check_plan
from ...datamodules.viki.encoding import picture_size, resized
from ...datamodules.viki.generate import LEVELS
from ...datamodules.viki.plans import find_answer, literal, steps_of
from ...datamodules.viki.prompts import activation_prompt, planning_prompt, trajectory_prompt
from ...datamodules.viki.records import Record, read_records
from ...datamodules.viki.vocabulary import robots as all_robots
from ...registry import COMMANDS, ROOT, UserError
from .check import find_record
from .scoring import score

DEFAULT_WEIGHTS = ROOT / "weights" / "viki-small"
OWN = "own"


@COMMANDS.register("viki solve", paper="2506.09049")
def solve(
    image: str, instruction: str, weights: str | None = None, record: str | None = None, level: str = "l2",
    robots: str = "R1=unitree_h1", strict: bool = False, max_new_tokens: int | None = None,
) -> int:  # fmt: skip
    """Ask a policy about a picture: which robots to take, a plan, or the ways of two arms.

    Args:
        image: picture file; `own` for that of the record.
        instruction: what should be done; `own` for the record's.
        weights: folder of a policy or ORG/NAME of a released Qwen2.5-VL; the released small policy unless given.
        record: FILE:N, a record whose team, picture and words can be used and whose checker judges the plan.
        level: l1 (which robots), l2 (a plan) or l3 (trajectories), where no record says so.
        robots: team of a plan, such as R1=unitree_h1,R2=fetch, where no record says so.
        strict: judge by the mended rules.
        max_new_tokens: limit of the answer; 320 for a policy of ours and 2048 for another model unless given.

    Pictures of another size than those that the policy was trained on are resized.

    Returns:
        1 if the answer can't be read or a record's checker refuses it, else 0.
    """
    known = None if record is None else _record(record)
    if known is None and OWN in (image, instruction):
        raise UserError('"own" stands for a record\'s picture or words: name one with --record FILE:N')
    asked = known or _new_record(level, robots)
    if image != OWN:
        asked = replace(asked, images=(_picture(Path(image)),), views=("global",))
    if instruction != OWN:
        asked = replace(asked, instruction=instruction)
    source = weights or _released()
    import torch  # it and transformers take seconds, and mistakes are told before

    from .policy.asked import answer_tokens
    from .policy.policy import VikiPolicy

    policy = VikiPolicy.load(source).to("cuda" if torch.cuda.is_available() else "cpu").eval()
    screen = Console(highlight=False, soft_wrap=True)
    if not policy.asked.blind and (size := policy.asked.picture_sizes.get(str(asked.level))):
        asked = _at_size(asked, size, screen)
    batch = policy.encode([policy.asked.prompt(asked)])
    limit = max_new_tokens or answer_tokens(source)
    answer = policy.generate(batch, greedy=True, max_new_tokens=limit).texts[0]
    screen.print(answer, markup=False)
    if asked.level == 2:
        for number, step in enumerate(_steps(answer), 1):
            told = "; ".join(f"{robot} {command.replace(',', ' ')}" for robot, command in sorted(step.items()))
            screen.print(f"{number}. {told}", markup=False)
    if unreadable := _unreadable(asked.level, answer):
        screen.print(f"The answer can't be read: {unreadable} (it had room for {limit} tokens).", markup=False)
    if known is None:
        return int(bool(unreadable))
    worth = score(known, answer, strict=strict)
    if isinstance(known.ground_truth, Mapping):
        screen.print(f"checker: {check_plan(known.problem, answer, strict=strict).sentence}", markup=False)
    screen.print(f"{known.key}: accuracy {worth.accuracy:.2f}, format {worth.format:.0f}", markup=False)
    return int(bool(unreadable) or (known.level != 3 and worth.accuracy < 1))


def _steps(answer: str) -> list[dict[str, str]]:
    try:
        return steps_of(literal(find_answer(answer) or ""))
    except ValueError:
        return []


def _unreadable(level: int, answer: str) -> str:
    """Why an answer is none, in a few words; empty where it is one."""
    found = find_answer(answer)
    if found is None:
        return "nothing stands between <answer> and </answer>"
    try:
        read = literal(found)
    except ValueError:
        return "what stands between <answer> and </answer> is no list"
    if level == 2:
        return "" if steps_of(read) else "it has no step in which a robot acts"
    return "" if isinstance(read, list) and read else "what stands between <answer> and </answer> is no list"


def _at_size(record: Record, size: tuple[int, int], screen: Console) -> Record:
    """The record with pictures of this width and height, and a note if they had another."""
    before = {picture_size(image) for image in record.images} - {size}
    if not before:
        return record
    had = ", ".join(f"{width}x{height}" for width, height in sorted(before))
    points = "; points in the answer are its pixels" if record.level == 3 else ""
    screen.print(
        f"picture: {had} resized to {size[0]}x{size[1]}, which the policy was trained on{points}", markup=False
    )
    images = tuple(image if picture_size(image) == size else resized(image, size) for image in record.images)
    return replace(record, images=images)


def _record(name: str) -> Record:
    file, _, number = name.rpartition(":")
    if not file:
        raise UserError(f"--record '{name}' is not FILE:N, such as DATA/test:3")
    return find_record(read_records(Path(file)), number, Path(file))


def _new_record(level: str, robots: str) -> Record:
    """A record without a truth, for a picture of the user's own.

    Raises:
        UserError: for an unknown level, or robots that are no team.
    """
    if level not in LEVELS:
        raise UserError(f"no level '{level}'\nlevels: {' '.join(LEVELS)}")
    if level == "l1":
        return Record(1, activation_prompt(), "", "[]")
    if level == "l3":
        return Record(3, trajectory_prompt(), "", "[]")
    pairs = [item.partition("=")[::2] for item in robots.split(",")]
    for agent, name in pairs:
        if not re.fullmatch("R[1-9]", agent) or name not in all_robots():
            raise UserError(
                f"--robots '{robots[:80]}': a team is written R1=unitree_h1,R2=fetch\nrobots: {' '.join(all_robots())}"
            )
    team = dict(pairs)
    return Record(2, planning_prompt(team), "", {"robots": team, "time_steps": []})


def _picture(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}") from None


def _released() -> Path:
    if not (DEFAULT_WEIGHTS / "config.json").is_file():
        raise UserError(
            "no small policy is released with this version\n"
            "fulgurite run viki/tiny   trains one; then --weights RUN/sft/policy"
        )
    return DEFAULT_WEIGHTS
