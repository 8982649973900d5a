"""A trained chunker on disk: `model.safetensors` and `config.json` in one folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ....datamodules.files import atomic_write, write_json
from ....registry import UserError
from .network import ChunkerNetwork

SCHEMA_VERSION = 1
DEFAULT_WEIGHTS = Path(__file__).parents[3] / "weights" / "chunking-layout"
TRAIN = "train one: fulgurite run chunking/chunker, then put it there: fulgurite chunking release"


def save_chunker(network: ChunkerNetwork, settings: dict[str, Any], told: dict[str, Any], folder: Path) -> None:
    """Write a network.

    Args:
        network: to write.
        settings: keyword arguments that make it.
        told: what else is to be known of it, such as the code's digest and metrics.
        folder: is made if it is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().half().contiguous() for k, v in network.state_dict().items()}
    with atomic_write(folder / "model.safetensors") as temporary:
        save_file(weights, temporary)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
    content = {"schema_version": SCHEMA_VERSION, "network": settings, "weights": digest, **told}
    write_json(folder / "config.json", content)


def load_chunker(folder: Path | None = None) -> tuple[ChunkerNetwork, dict[str, Any]]:
    """A network in evaluation mode and its config.

    Args:
        folder: what `save_chunker` wrote; None takes the released weights.

    Raises:
        UserError: if the folder is missing, damaged, or of another version.
    """
    place = DEFAULT_WEIGHTS if folder is None else folder
    if not (place / "config.json").is_file() or not (place / "model.safetensors").is_file():
        raise UserError(f"{place}: there is no trained chunker\n{TRAIN}; or read with --reader rules.")
    try:
        config = json.loads((place / "config.json").read_text(encoding="utf-8"))
        if config["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{place}: schema_version {config['schema_version']}, this release reads {SCHEMA_VERSION}")
        network = ChunkerNetwork(**config["network"])
        network.load_state_dict({k: v.float() for k, v in load_file(place / "model.safetensors").items()})
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        reason = str(error).partition("\n")[0][:160]
        raise UserError(f"{place}: is no trained chunker of this release: {reason}\n{TRAIN}.") from None
    network.eval().requires_grad_(False)
    return network, config
