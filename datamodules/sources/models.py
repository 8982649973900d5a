"""Model names: a named source, a local folder, or a Hugging Face id. And the GGUF file made into an ordinary folder."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...registry import UserError, did_you_mean, install_line
from .catalogue import SOURCES
from .download import fetch


def resolve_model(name: str) -> str:
    """What to give to `from_pretrained` for a model name.

    Args:
        name: a source that holds a model (`smollm2-135m-instruct`, `minilm-l6`, `tiny-random-llama`, ...): fetched if
            the cache lacks it; a local folder; otherwise a Hugging Face id, returned unchanged.

    Raises:
        UserError: if the source cannot be fetched or holds data, if a path does not exist, or for a near miss of a
            source's name.
    """
    if name in SOURCES:
        if SOURCES[name].holds != "model":
            raise UserError(f"'{name}' is a data source, not a model\nmodels: {', '.join(_model_names())}")
        return str(fetch(name))
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise UserError(f"{name} is a file; a model is a folder with config.json and *.safetensors")
    if path.is_absolute() or name.startswith((".", "~")) or (os.sep in name and name.count("/") != 1):
        raise UserError(
            f"no model folder at {name}\nGive a folder, a Hugging Face id, or one of {', '.join(_model_names())}"
        )
    hint = did_you_mean(name, _model_names()) if "/" not in name else ""
    if hint:
        raise UserError(f"no model named '{name}'\n{hint}")
    return name


def dequantise(folder: Path) -> None:
    """Replace the one GGUF file in `folder` by what transformers loads: fp32 safetensors, config, tokenizer.

    The weights keep the error of their 4-bit quantisation. Peak memory 1.2 GB for 135 M parameters.

    Raises:
        UserError: if the packages `transformers` or `gguf` are missing.
    """
    try:
        import gguf  # noqa: F401  (transformers needs it, and its own complaint is harder to read)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise UserError(f"a GGUF model needs '{error.name}'\n{install_line()}") from None
    file = next(folder.glob("*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(str(folder), gguf_file=file.name)
    with no_progress_bars(), contextlib.redirect_stderr(io.StringIO()):  # the GGUF reader's own bar obeys no switch
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), gguf_file=file.name, dtype=torch.float32, quantization_config=_dense()
        )
        model.hf_quantizer, model.is_quantized = None, False  # else save_pretrained refuses a "GGUF" model
        for key in ("quantization_config", "_pre_quantization_dtype"):
            if hasattr(model.config, key):
                delattr(model.config, key)
        model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    file.unlink()


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep transformers' progress bars off stderr inside the block."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _dense() -> object | None:
    """Ask for dense weights: transformers keeps them packed if the `kernels` package is there (None before 5.2x)."""
    try:
        from transformers import GgufConfig
    except ImportError:
        return None
    return GgufConfig(dequantize=True)


def _model_names() -> list[str]:
    return [source.name for source in SOURCES.values() if source.holds == "model"]
