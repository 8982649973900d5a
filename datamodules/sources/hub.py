"""Sources written `hf:ORG/NAME`: a model of the Hugging Face Hub, kept in the Hub client's own cache."""

from __future__ import annotations

import re
from pathlib import Path

from ...registry import UserError

PREFIX = "hf:"
# other frameworks' weights, and pickled ones, which are never loaded
LEFT_OUT = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "rust_model*", "*.gguf", "*.tflite", "*.mlmodel"]


def is_hub(name: str) -> bool:
    """Whether a source's name is written `hf:…`."""
    return name.startswith(PREFIX)


def fetch_hub(name: str, *, offline: bool = False) -> Path:
    """Bring a model of the Hub into its client's cache: safetensors, configuration and tokenizer.

    Args:
        name: `hf:ORG/NAME`.
        offline: use no network, and take what is there.

    Returns:
        The folder of the snapshot.

    Raises:
        UserError: if the name is none, or the model is not there and can't be downloaded.
    """
    identity = name.removeprefix(PREFIX)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", identity):
        raise UserError(f"'{name}' is no source: a model of the Hugging Face Hub is written hf:ORG/NAME")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(identity, ignore_patterns=LEFT_OUT, local_files_only=offline))
    except Exception as error:  # network, disk, rights: the client raises many kinds, of several packages
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{name} can't be had from the Hugging Face Hub: {why[:300]}") from None


def is_hub_cached(name: str) -> bool:
    """Whether the Hub client's cache holds a snapshot of the model."""
    try:
        fetch_hub(name, offline=True)
    except UserError:
        return False
    return True
