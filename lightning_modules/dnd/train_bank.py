"""`fulgurite dnd train`: a generator on a bank's snapshots, with the options that go beyond the paper, one by one."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    import torch

    from ...datamodules.dnd.snapshots import SnapshotStore
    from ...datamodules.dnd.token_rows import RowStream
    from .bank_pairs import BankPairs
    from .batched_lora import BatchedLoRA

LOSSES = ("tokens", "product")


@COMMANDS.register("dnd train", paper="2506.16406")
def train(
    store: Path, out: Path, held_out: list[str], shapes: list[list[int]] | None = None, kernel_size: int = 3,
    encoder: str = "minilm-l6", num_prompts: int = 32, prompt_length: int = 64, prompt_pool: int = 256,
    dropout_draws: int = 3, chunk: int | None = None, steps: int = 1000, batch_size: int = 32, lr: float = 2e-4,
    loss: str = "tokens", canonical: bool = False, centred: bool = False, retrieval: int = 0, llm_steps: int = 0,
    llm_tasks: int = 8, llm_rows: int = 16, llm_lr: float = 1e-4, begin: Path | None = None,
    shared: Path | None = None, seed: int = 0,
) -> None:  # fmt: skip
    """Train a generator on a bank's snapshots; go on where an earlier call stopped.

    Args:
        store: folder of snapshots (`fulgurite dnd collect`).
        out: folder for the generator, as `dnd adapt`, `dnd evaluate` and `dnd compare` take it.
        held_out: tasks that it must not see: those of validation and of test; `kind:emotion` is every task of a kind.
        shapes: the cascade; the first is prompts, tokens, channels, the last the weight tokens'.
        kernel_size: side of every kernel; odd.
        encoder: sentence encoder's model name.
        num_prompts: prompts of a condition.
        prompt_length: encoder tokens of a prompt.
        prompt_pool: prompts of a task to draw from.
        dropout_draws: dropout draws of the encoder to draw from.
        chunk: width of a weight token; default the widest that fits.
        steps: steps onto the snapshots.
        batch_size: pairs of a step.
        lr: learning rate.
        loss: `tokens`, the published one, or `product`, the error of B A.
        canonical: put every LoRA in one coordinate system first (B A stays as it is).
        centred: begin at the mean of the training tokens, which is learned too; the cascade makes what differs from it.
        retrieval: nearest training tasks whose mean tokens the generator adds to; 0 is none.
        llm_steps: steps through the frozen model after those, on the training tasks' labels.
        llm_tasks: tasks of such a step.
        llm_rows: labelled rows of each.
        llm_lr: their learning rate.
        begin: a trained generator of the same make to begin with.
        shared: an adapter's file (multi_task.safetensors or shared.safetensors of `dnd mix`) that the generator adds
            to, weighed by a gate that begins at zero; for training through the model, so `steps` has to be 0.
        seed: seed of initial weights and draws.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if (out / "generator.json").is_file():
        console.print(f"{out}: its generator is trained; another one needs another folder")
        return
    if loss not in LOSSES:
        raise UserError(f"--loss is '{loss}': {' or '.join(LOSSES)}")
    if shared is not None and (steps or retrieval or centred):
        raise UserError("--shared is for training through the model: give --steps 0, no --retrieval and no --centred")
    if centred and retrieval:
        raise UserError("--centred and --retrieval each say what the generator adds to: give one of them")
    import torch

    from ...datamodules.dnd.snapshots import read_adapter
    from ...datamodules.dnd.token_batches import untokenize_batch
    from .bank_training import Steps, onto_snapshots, through_the_model, unseen_losses
    from .generator import TrainedGenerator, build_network
    from .retrieval import RetrievalGenerator, SharedGenerator

    pairs = open_pairs(
        store, held_out, canonical=canonical, encoder=encoder, num_prompts=num_prompts, prompt_length=prompt_length,
        prompt_pool=prompt_pool, dropout_draws=dropout_draws, chunk=chunk, seed=seed,
    )  # fmt: skip
    tokenizer = pairs.data.tokenizer
    assert tokenizer is not None
    first, last = pairs.condition_shape, [tokenizer.num_tokens, *tokenizer.token_shape]
    shapes = shapes or [first, last]
    for wanted, got, end in ((first, shapes[0], "first"), (last, shapes[-1], "last")):
        if list(got) != wanted:
            raise UserError(f"--shapes: the {end} shape is {list(got)}, this bank needs {wanted}")
    torch.manual_seed(seed)
    cascade: dict[str, Any] = {"shapes": [list(s) for s in shapes], "kernel_size": kernel_size}
    cascade |= {"retrieval": retrieval} if retrieval else {"shared": True} if shared or centred else {}
    network = build_network(cascade, len(pairs.tasks)).to(pairs.device)
    if isinstance(network, RetrievalGenerator):
        network.fill(pairs.keys_KC, pairs.means_KTHW)
    if isinstance(network, SharedGenerator):
        start = tokenizer.tokenize(read_adapter(shared)) if shared else pairs.means_KTHW.mean(0)
        network.begin(start, gate=0.0 if shared else 1.0)
    if begin is not None:
        try:
            network.load_state_dict(TrainedGenerator.load(begin).network.state_dict())
        except RuntimeError:
            raise UserError(f"--begin {begin}: a generator of another make: shapes, --retrieval or --centred") from None
    out.mkdir(parents=True, exist_ok=True)
    if steps and not (out / "model.resume").is_file():  # which was begun when these were done
        say = sayer(console, f"{out.name}, onto snapshots", steps)
        onto_snapshots(network, pairs, Steps(steps, batch_size, lr), loss, out / "tokens.resume", say)
    if llm_steps:
        model, streams = open_model(pairs, llm_rows, seed)

        def stack_of(condition: torch.Tensor, task: torch.Tensor) -> dict[str, torch.Tensor]:
            tokens = network(condition, task) if retrieval else network(condition)
            return untokenize_batch(tokenizer, tokens)

        say = sayer(console, f"{out.name}, through the model", llm_steps)
        through_the_model(
            network, stack_of, model, pairs, streams, Steps(llm_steps, llm_tasks, llm_lr), out / "model.resume", say
        )
    losses, size = unseen_losses(network, pairs), sum(p.numel() for p in network.parameters())
    text = (
        f"Generator of {size:,} parameters. On prompts of its {len(pairs.tasks)} training tasks that it never saw it "
        f"explains {1 - losses['val/loss'] / losses['val/loss_constant']:.0%} of what the best constant leaves: loss "
        f"{losses['val/loss']:.3g} against {losses['val/loss_constant']:.3g}."
    )
    if retrieval:
        text += " These tasks' own adapters are among those that it retrieves from; a new task's is not."
    console.print(f"{out.name}: {text}")
    write_json(out / "results.json", {"schema_version": 1, "metrics": losses, "statements": [text], "tables": []})
    TrainedGenerator.of(network.cpu(), pairs.data, cascade).save(out)


def open_pairs(store: Path, held_out: list[str], *, canonical: bool = False, **settings: Any) -> BankPairs:
    """The training tasks' pairs, on the GPU if there is one; the last ones are kept for a next training in the process.

    Args:
        store: folder of snapshots.
        held_out: tasks to leave out.
        canonical: put all snapshots in one coordinate system first.
        settings: of `PromptCheckpointDataModule`.
    """
    pairs: BankPairs = _open_pairs(store, tuple(held_out), canonical, tuple(sorted(settings.items())))
    return pairs


@functools.lru_cache(maxsize=1)
def _open_pairs(store: Path, held_out: tuple[str, ...], canonical: bool, settings: tuple[tuple[str, Any], ...]) -> Any:
    import torch

    from ...datamodules.dnd.module import PromptCheckpointDataModule
    from .bank_pairs import BankPairs

    data = PromptCheckpointDataModule(str(store), list(held_out), **dict(settings))
    return BankPairs(data, torch.device("cuda" if torch.cuda.is_available() else "cpu"), canonical)


def open_model(pairs: BankPairs, rows: int, seed: int, max_length: int = 160) -> tuple[BatchedLoRA, list[RowStream]]:
    """The frozen base model, and the training tasks' labelled rows."""
    from ...datamodules.dnd.tasks import load_task
    from ...datamodules.dnd.token_rows import RowStream, token_rows
    from .batched_lora import BatchedLoRA

    snapshots: SnapshotStore = pairs.data.snapshots
    manifest = snapshots.manifest
    model = BatchedLoRA(manifest["base_model"], manifest["adapter_config"], pairs.device)
    streams = []
    for task in pairs.tasks:
        entry = manifest["tasks"][task.name]
        examples = load_task(entry["spec"], limit=entry["limit"], seed=entry["seed"]).train
        streams.append(RowStream(token_rows(model.tokenizer, snapshots.text, examples, max_length), rows, seed))
    return model, streams


def sayer(console: Console, what: str, steps: int) -> Callable[[int, float], None]:
    """Prints a step and its loss."""
    begun = time.monotonic()

    def say(step: int, loss: float) -> None:
        console.print(f"{what}: step {step} of {steps}, loss {loss:.4f}, {time.monotonic() - begun:.0f} s")

    return say
