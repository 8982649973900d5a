"""`fulgurite dnd mix`: a multi-task LoRA, and learned weights over the training tasks' own LoRAs beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import atomic_write, write_json
from ...registry import COMMANDS, UserError
from .train_bank import open_model, open_pairs, sayer

if TYPE_CHECKING:
    import torch

    from ...datamodules.dnd.conditions import PromptEncoder
    from ...datamodules.dnd.token_rows import Row, RowStream
    from .mixer import AdapterMixer

SCHEMA_VERSION = 1


@COMMANDS.register("dnd mix", paper="2506.16406")
def mix(
    store: Path, out: Path, held_out: list[str], encoder: str = "minilm-l6", num_prompts: int = 32,
    prompt_length: int = 64, prompt_pool: int = 256, dropout_draws: int = 3, shared_steps: int = 400,
    shared_rows: int = 128, shared_lr: float = 1e-3, steps: int = 300, tasks: int = 8, rows: int = 16,
    lr: float = 5e-4, nearest: int = 4, seed: int = 0,
) -> None:  # fmt: skip
    """Train a multi-task LoRA, then a mixer that begins at it; go on where an earlier call stopped.

    The multi-task LoRA also goes on by itself, at a fifth of the rate, for as many rows as the mixer sees: that is the
    control.

    Args:
        store: folder of snapshots (`fulgurite dnd collect`).
        out: folder for multi_task.safetensors (the control), mixer.safetensors and mixer.json.
        held_out: tasks that neither must see; `kind:emotion` is every task of a kind.
        encoder: sentence encoder's model name.
        num_prompts: prompts of a condition.
        prompt_length: encoder tokens of a prompt.
        prompt_pool: prompts of a task to draw from.
        dropout_draws: dropout draws of the encoder to draw from.
        shared_steps: steps of the multi-task LoRA.
        shared_rows: rows of such a step, over all training tasks.
        shared_lr: its learning rate.
        steps: steps of the mixer, through the frozen model on the training tasks' labels.
        tasks: tasks of such a step.
        rows: labelled rows of each.
        lr: its learning rate.
        nearest: training tasks whose LoRAs may get weight.
        seed: of initial weights and draws.
    """
    import torch
    from safetensors.torch import load_file, save_file

    from .bank_training import Steps, through_the_model
    from .bulk import BulkSettings, train_together
    from .mixer import AdapterMixer

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if (out / "mixer.json").is_file():
        console.print(f"{out}: its mixer is trained; another one needs another folder")
        return
    pairs = open_pairs(
        store, held_out, encoder=encoder, num_prompts=num_prompts, prompt_length=prompt_length,
        prompt_pool=prompt_pool, dropout_draws=dropout_draws, chunk=None, seed=seed,
    )  # fmt: skip
    if len(pairs.tasks) < 2:
        raise UserError(f"{store}: {len(pairs.tasks)} training task is left; a mixer needs two at least")
    model, streams = open_model(pairs, rows, seed)
    snapshots = pairs.data.snapshots
    rank = int(snapshots.manifest["adapter_config"]["r"])
    out.mkdir(parents=True, exist_ok=True)
    control, shared = out / "multi_task.safetensors", out / "shared.safetensors"
    if not control.is_file():
        more = steps * tasks * rows // shared_rows  # the control sees as many rows as the mixer in the end
        settings = BulkSettings(rank, shared_steps + more, num_snapshots=more + 1, lr=shared_lr, init_seed=seed)
        say = sayer(console, "multi-task LoRA", settings.steps)
        mixed: Any = MixedStream(streams, shared_rows)

        def keep(k: int, step: int, state: Mapping[str, torch.Tensor]) -> None:
            for file, last in ((shared, shared_steps), (control, settings.steps)):
                if step == last:
                    with atomic_write(file) as temporary:
                        save_file({key: value.float().cpu().contiguous() for key, value in state.items()}, temporary)

        resume = out / "multi_task.resume"
        train_together(model, [mixed], settings, resume, keep, lambda step, losses: say(step, losses[0]))
    torch.manual_seed(seed)
    adapters = [snapshots.load(t.name) for t in pairs.tasks]
    mixer = AdapterMixer(adapters, pairs.keys_KC.cpu(), load_file(shared), nearest).to(pairs.device)
    say = sayer(console, f"{out.name}, through the model", steps)
    through_the_model(mixer, mixer, model, pairs, streams, Steps(steps, tasks, lr), out / "mixer.resume", say)
    with atomic_write(out / "mixer.safetensors") as temporary:
        save_file({k: v.detach().cpu().contiguous() for k, v in mixer.state_dict().items()}, temporary)
    meta = {
        "schema_version": SCHEMA_VERSION, "tasks": [t.name for t in pairs.tasks], "nearest": nearest, "rank": rank,
        "encoder": encoder, "num_prompts": num_prompts, "prompt_length": prompt_length,
        "keys": list(adapters[0]), "text": snapshots.manifest["text"], "base_model": snapshots.manifest["base_model"],
    }  # fmt: skip
    write_json(out / "mixer.json", meta)


class MixedStream:
    """Rows of several tasks in turn, as one stream.

    Args:
        streams: of the tasks.
        batch_size: rows of a batch.
    """

    def __init__(self, streams: Sequence[RowStream], batch_size: int) -> None:
        self._streams, self.batch_size = streams, batch_size

    def batch(self, step: int) -> list[Row]:
        """The rows of one step: the tasks take turns, and each goes on where it stopped."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        num = len(self._streams)
        return [self._streams[place % num].row(place // num) for place in places]


class TrainedMixer:
    """A mixer as a folder that `dnd mix` wrote, ready to use.

    Args:
        folder: with mixer.json and mixer.safetensors.

    Raises:
        UserError: if it is none, or of another schema.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        try:
            self.meta: dict[str, Any] = json.loads((folder / "mixer.json").read_text(encoding="utf-8"))
            weights = load_file(folder / "mixer.safetensors")
        except Exception as error:  # OSError, JSON's and safetensors' own error types
            raise UserError(f"{folder}: no mixer here: {error}\nfulgurite dnd mix --help") from None
        if self.meta["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{folder}: a mixer of another schema; this fulgurite reads {SCHEMA_VERSION}")
        self.network = _empty(self.meta["keys"], weights, self.meta["nearest"])
        self.network.load_state_dict(weights)

    def encoder(self) -> PromptEncoder:
        """The frozen sentence encoder of the conditions."""
        from ...datamodules.dnd.conditions import PromptEncoder

        return PromptEncoder(self.meta["encoder"], self.meta["prompt_length"])

    def adapter(self, condition_NLC: torch.Tensor) -> dict[str, torch.Tensor]:
        """One condition [N, L, C] to an adapter of rank (K + 1) R; lora_alpha / r has to stay what it was."""
        import torch

        with torch.no_grad():
            stack = self.network(condition_NLC.unsqueeze(0).float().to(self.network.key.device))
        return {key: value[0].contiguous() for key, value in stack.items()}


def _empty(keys: Sequence[str], weights: Mapping[str, torch.Tensor], nearest: int) -> AdapterMixer:
    """A mixer of the right shapes."""
    import torch

    from .mixer import AdapterMixer

    shared = {key: torch.zeros_like(weights[f"shared.{key.replace('.', '/')}"]) for key in keys}
    keys_KC = weights["lookup.keys_KC"]
    return AdapterMixer([shared] * len(keys_KC), keys_KC, shared, nearest)
