"""How a policy was asked in training, kept beside its weights so that it is asked the same way later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from ....datamodules.files import write_json
from ....datamodules.viki.module import chosen_images, decode
from ....datamodules.viki.prompts import short_prompt
from ....datamodules.viki.records import Record
from ....registry import UserError
from .batch import Prompt

FILE = "asked.json"
SCHEMA_VERSION = 1
OURS_TOKENS, OTHERS_TOKENS = 320, 2048
WEIGHTS = Path(__file__).parents[3] / "weights"


def local_folder(folder_or_name: str | Path) -> Path:
    """A folder, or the one of that name in the checkout's weights/ where there is no other."""
    folder, name = Path(folder_or_name), str(folder_or_name)
    return WEIGHTS / name if "/" not in name and not folder.exists() and (WEIGHTS / name).is_dir() else folder


def answer_tokens(folder_or_id: str | Path) -> int:
    """A limit of answers: small for a policy that learned our short ones, large for any other model."""
    return OURS_TOKENS if (local_folder(folder_or_id) / FILE).is_file() else OTHERS_TOKENS


@dataclass(frozen=True)
class Asked:
    """How a policy is asked.

    Attributes:
        prompts: `full` or `short` system prompts.
        views: `all` pictures, or the `global` one alone.
        blind: without pictures.
        picture_sizes: width and height of the global views that it was trained on, pixels, by the level's number as
            text; without the levels where they differed.
    """

    prompts: str = "full"
    views: str = "all"
    blind: bool = False
    picture_sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def prompt(self, record: Record, *, blind: bool = False) -> Prompt:
        """A record as a prompt; with `blind` also where the policy saw pictures in training."""
        chosen = () if self.blind or blind else chosen_images(record, self.views)
        system = short_prompt(record) if self.prompts == "short" else record.system
        return Prompt(system, record.instruction, [decode(image) for image in chosen])

    def save(self, folder: Path) -> None:
        """Write it."""
        write_json(folder / FILE, {"schema_version": SCHEMA_VERSION, **asdict(self)})

    @classmethod
    def load(cls, folder: Path) -> Asked:
        """Read it; the defaults where there is none, as beside released weights.

        Raises:
            UserError: if it is of another version.
        """
        if not (folder / FILE).is_file():
            return cls()
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if told.get("schema_version") != SCHEMA_VERSION:
            raise UserError(f"{folder / FILE}: schema_version {told.get('schema_version')}, not {SCHEMA_VERSION}")
        sizes = {level: (int(size[0]), int(size[1])) for level, size in told.pop("picture_sizes", {}).items()}
        return cls(**{f.name: told[f.name] for f in fields(cls) if f.name in told}, picture_sizes=sizes)
