"""`fulgurite dnd compare`: several generators on many held-out tasks, beside every control, with intervals."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError

if TYPE_CHECKING:
    from torch import Tensor

    from ...datamodules.dnd.conditions import PromptEncoder
    from ...datamodules.dnd.examples import Task
    from ...datamodules.dnd.snapshots import SnapshotStore
    from .batched_lora import BatchedLoRA
    from .generator import TrainedGenerator
    from .mix import TrainedMixer
    from .progress import Lines

OTHERS, BEST, MEAN = "LoRA of another task", "best single LoRA, chosen on the test", "mean of the training LoRAs"
MULTI_TASK, NEAREST, OWN = "multi-task LoRA", "LoRA of the nearest prompts", "own LoRA"
AVERAGED, MISMATCHED = "mean of its draws", "mismatched prompts"


@COMMANDS.register("dnd compare", paper="2506.16406")
def compare(
    store: Path, variants: list[Path], test: list[str], out: Path, val: list[str] | None = None,
    multi_task: Path | None = None, num_test: int = 200, num_recovery: int = 100,
    draws: int = 3, shots: int = 4, mismatched: int = 3,
    averaged: int = 8, few: list[int] | None = None, at_once: int = 12, seed: int = 0,
) -> None:  # fmt: skip
    """Score generators, mixers and controls on held-out tasks, many adapters at once; go on where it stopped.

    Args:
        store: folder of snapshots, those of the held-out tasks included (their own LoRAs are the ceiling).
        variants: folders of generators (`dnd train`) and mixers (`dnd mix`), called by their names, the published
            one first.
        test: held-out tasks that are reported; `kind:emotion` is every task of a kind.
        out: folder for the scores and results.json.
        val: held-out tasks that choose the best variant.
        multi_task: the multi-task LoRA's file (`dnd mix` writes it).
        num_test: test examples of each task.
        num_recovery: test examples of each training task, for what the variants give back of its LoRA; 0 leaves it out.
        draws: prompt draws of each variant.
        shots: solved examples for in-context learning (the labels that no variant gets).
        mismatched: training tasks whose prompts are given to the variants instead; the nearest is one of them.
        averaged: draws whose mean adapter makes a row of its own, for generators; 0 leaves it out.
        few: numbers of different prompts, each of which makes a row: so many of a task's prompts, repeated in turn.
        at_once: adapters of a forward pass.
        seed: of the draws.
    """
    labels = [folder.name for folder in variants]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise UserError(f"--variants: two folders are called '{twice[0]}', which tables could not tell apart")
    if not variants or not test:
        raise UserError("dnd compare needs at least one variant and one test task")
    import torch

    from ...datamodules.dnd.snapshots import SnapshotStore, read_adapter
    from ...datamodules.dnd.tasks import load_task
    from .bank_report import bank_results, coverage_told, given_back
    from .batched_lora import BatchedLoRA
    from .generator import TrainedGenerator
    from .mix import TrainedMixer
    from .progress import Lines

    console, snapshots = Console(stderr=True, highlight=False, soft_wrap=True), SnapshotStore(store)
    test, val = snapshots.named(test), snapshots.named(val or [])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shared_adapter = None if multi_task is None else read_adapter(multi_task)
    made: dict[str, Any] = {}
    for folder in variants:
        is_mixer = (folder / "mixer.json").is_file()
        made[folder.name] = TrainedMixer(folder) if is_mixer else TrainedGenerator.load(folder)
    training: list[str] = list(next(iter(made.values())).meta["tasks"])
    if shared := sorted({*test} & {*val}):
        raise UserError(f"'{shared[0]}' is in --test and in --val: what chooses a variant can't judge it")
    _check_held_out(made, training, [*test, *val], snapshots)
    model = BatchedLoRA(snapshots.manifest["base_model"], snapshots.manifest["adapter_config"], device)
    guide = next((v for v in made.values() if isinstance(v, TrainedGenerator)), None)
    if guide is None:
        raise UserError(
            "--variants: one of them has to be a generator (dnd train): its coverage finds the nearest task"
        )
    for variant in made.values():
        variant.to(device) if isinstance(variant, TrainedGenerator) else variant.network.to(device)
    encoder = guide.encoder()
    work = _Work(
        model, snapshots, made, guide, encoder, training, draws, mismatched, averaged, few or [], at_once, seed,
        Lines(console),
    )  # fmt: skip
    scores: dict[str, dict[str, Any]] = {}
    for name in [*test, *val]:
        entry = snapshots.manifest["tasks"][name]
        settings = [training, num_test, draws, shots, mismatched, averaged, few, seed]
        control = multi_task and [str(multi_task), multi_task.stat().st_mtime_ns]
        asked = [[str(f) for f in variants], control, *settings]
        mark = hashlib.sha256(json.dumps([name, asked, _stamps(variants)]).encode()).hexdigest()[:12]
        file = out / "scores" / f"{name.replace('/', '-').replace(':', '-')}-{mark}.json"
        if not file.is_file():
            task = load_task(entry["spec"], limit=entry["limit"], seed=entry["seed"])
            write_json(file, work.score(name, task, num_test, shots, shared_adapter))
        scores[name] = json.loads(file.read_text(encoding="utf-8"))
        shown = ", ".join(f"{m} {sum(v) / len(v):.2f}" for m, v in scores[name]["choice"].items())
        console.print(f"{name}: {shown}")
    known: dict[str, dict[str, Any]] = {}
    for name in training:
        asked = [[str(f) for f in variants], num_recovery, seed]
        mark = hashlib.sha256(json.dumps([name, asked, _stamps(variants)]).encode()).hexdigest()[:12]
        file = out / "scores" / f"known-{name.replace('/', '-').replace(':', '-')}-{mark}.json"
        if num_recovery and not file.is_file():
            entry = snapshots.manifest["tasks"][name]
            task = load_task(entry["spec"], limit=entry["limit"], seed=entry["seed"])
            write_json(file, work.recover(name, task, num_recovery))
        if num_recovery:
            known[name] = json.loads(file.read_text(encoding="utf-8"))
    kinds = {name: snapshots.manifest["tasks"][name].get("kind", name) for name in [*test, *val]}
    both = [
        {m: {t: scores[t][measure][m] for t in scores} for m in scores[test[0]][measure]}
        for measure in ("choice", "exact_match")
    ]
    names = [n for m in made for n in (m, f"{m}, {AVERAGED}") if n in both[0]]
    results = bank_results(both[0], both[1], test, val, names, kinds)
    covered = coverage_told(both[0], {name: scores[name]["cosine"] for name in [*test, *val]}, names[0])
    for more in (covered, given_back(known, list(made))):
        for part in ("statements", "tables"):
            results[part] += more.get(part, [])
        results["metrics"] |= more["metrics"]
    write_json(out / "results.json", {"schema_version": 1, **results})


def _check_held_out(
    made: Mapping[str, Any], training: list[str], held_out: list[str], snapshots: SnapshotStore
) -> None:
    specs = {snapshots.manifest["tasks"][name]["spec"]: name for name in held_out}
    for label, variant in made.items():
        seen = set(variant.meta["tasks"]) & set(held_out)
        if seen:
            raise UserError(f"{label}: was trained on '{sorted(seen)[0]}', which is not held out then")
        for name in variant.meta["tasks"]:
            same = specs.get(snapshots.manifest["tasks"].get(name, {}).get("spec"))
            if same is not None:
                raise UserError(f"{label}: was trained on '{name}', whose examples are those of '{same}'")
        if list(variant.meta["tasks"]) != training:
            raise UserError(
                f"{label}: was trained on other tasks than the first variant, and can't be compared with it"
            )


def _stamps(folders: list[Path]) -> list[int]:
    files = [f / name for f in folders for name in ("generator.json", "mixer.json")]
    return [file.stat().st_mtime_ns for file in files if file.is_file()]


class _Work:
    """Adapters of every method for a held-out task, and their scores."""

    def __init__(
        self, model: BatchedLoRA, snapshots: SnapshotStore, made: Mapping[str, TrainedGenerator | TrainedMixer],
        guide: TrainedGenerator, encoder: PromptEncoder, training: list[str], draws: int, mismatched: int,
        averaged: int, few: list[int], at_once: int, seed: int, tell: Lines,
    ) -> None:  # fmt: skip
        self.model, self.snapshots, self.made, self.guide, self.encoder = model, snapshots, made, guide, encoder
        self.training, self.draws, self.mismatched, self.averaged = training, draws, mismatched, averaged
        self.few, self.at_once, self.seed, self.tell = few, at_once, seed, tell
        self._prompts: dict[str, list[str]] = {}
        self._conditions: dict[tuple[str, int], Tensor] = {}
        self._loras = {name: self._placed(snapshots.load(name)) for name in training}

    def score(
        self, name: str, task: Task, num_test: int, shots: int, multi_task: Mapping[str, Tensor] | None
    ) -> dict[str, Any]:
        """{"choice": method -> scores, "exact_match": method -> scores, "nearest": task, "examples": number}."""
        from .bulk_scoring import score_together

        examples, form = task.test[:num_test], self.snapshots.text
        unlabelled = list(dict.fromkeys(e.prompt for e in task.train))
        near, cosine, floor = self.guide.coverage(self.encoder.embed(unlabelled[:256]))
        found: dict[str, dict[str, list[float]]] = {"choice": {}, "exact_match": {}}

        def note(method: str, result: Any, k: int = 0) -> None:
            exact = float(result.exact_KE[k].float().mean())
            choice = exact if result.choice_KE is None else float(result.choice_KE[k].float().mean())
            found["choice"].setdefault(method, []).append(choice)
            found["exact_match"].setdefault(method, []).append(exact)

        self.tell(f"{name}: base model")
        note("base", score_together(self.model, None, form, examples))
        solved = task.train[:shots]
        note(
            f"{shots} solved examples", score_together(self.model, None, form, examples, shots=solved, max_length=1024)
        )
        waiting: list[tuple[str, Mapping[str, Tensor]]] = []
        for method, state in self._adapters(name, unlabelled, near, multi_task):
            if waiting and (len(waiting) == self.at_once or _rank(waiting[0][1]) != _rank(state)):
                self._flush(waiting, form, examples, note)
                self.tell(f"{name}: {sum(map(len, found['choice'].values()))} rows scored")
            waiting.append((method, state))
        self._flush(waiting, form, examples, note)
        for values in found.values():
            others = values.pop(OTHERS)
            values[MEAN], values[BEST] = [sum(others) / len(others)], [max(others)]
        return {**found, "nearest": near, "cosine": cosine, "floor": floor, "examples": len(examples)}

    def recover(self, name: str, task: Task, num_test: int) -> dict[str, float]:
        """Base, own LoRA and each variant on a training task, the variants fed with prompts that they never saw."""
        from .bulk_scoring import score_together

        examples, form = task.test[:num_test], self.snapshots.text
        unseen = list(dict.fromkeys(e.prompt for e in task.val))
        found: dict[str, float] = {}

        def note(method: str, result: Any, k: int = 0) -> None:
            right_KE = result.exact_KE if result.choice_KE is None else result.choice_KE
            found[method] = float(right_KE[k].float().mean())

        self.tell(f"{name}, a training task")
        note("base", score_together(self.model, None, form, examples))
        self._conditions.clear()
        waiting: list[tuple[str, Mapping[str, Tensor]]] = [(OWN, self._loras[name])]
        for label, variant in self.made.items():
            state = self._made(variant, name, unseen, self.seed)
            if _rank(waiting[0][1]) != _rank(state):
                self._flush(waiting, form, examples, note)
            waiting.append((label, state))
        self._flush(waiting, form, examples, note)
        return found

    def _flush(self, waiting: list[tuple[str, Any]], form: Any, examples: Any, note: Any) -> None:
        import torch

        from .bulk_scoring import score_together

        states = [state for _, state in waiting]
        stack = {key: torch.stack([s[key].to(self.model.device) for s in states]) for key in states[0]}
        result = score_together(self.model, stack, form, examples)
        for k, (method, _) in enumerate(waiting):
            note(method, result, k)
        waiting.clear()

    def _adapters(
        self, name: str, unlabelled: list[str], near: str, multi_task: Mapping[str, Tensor] | None
    ) -> Iterator[tuple[str, Mapping[str, Tensor]]]:
        """(method, adapter), those of one rank one after the other."""
        import torch

        for other, state in self._loras.items():
            yield OTHERS, state
            if other == near:
                yield NEAREST, state
        yield "soup of all LoRAs", self._placed(self.snapshots.soup(self.training))
        yield OWN, self._placed(self.snapshots.load(name))
        if multi_task is not None:
            yield MULTI_TASK, self._placed(multi_task)
        self._conditions.clear()
        stride = max(1, len(self.training) // max(1, self.mismatched))
        foreign = [near, *(t for t in self.training[::stride] if t != near)]
        for label, variant in self.made.items():
            for draw in range(self.draws):
                yield label, self._made(variant, name, unlabelled, self.seed + draw)
            if self.averaged and hasattr(variant, "generate"):
                states = [self._made(variant, name, unlabelled, self.seed + d) for d in range(self.averaged)]
                yield f"{label}, {AVERAGED}", {k: torch.stack([s[k] for s in states]).mean(0) for k in states[0]}
            for count in self.few:
                some = random.Random(self.seed).sample(unlabelled, min(count, len(unlabelled)))
                yield f"{label}, {count} prompts", self._made(variant, f"{name}, {count}", some, self.seed)
            for other in foreign[: self.mismatched]:
                yield f"{label}, {MISMATCHED}", self._made(variant, other, self._prompts_of(other), self.seed)

    def _placed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self.model.device) for key, value in state.items()}

    def _made(self, variant: Any, task: str, prompts: list[str], seed: int) -> Mapping[str, Tensor]:
        """A variant's adapter, made on the device from N of the prompts, the same for all variants."""
        import torch

        if (task, seed) not in self._conditions:
            chosen = self.encoder.encode(self.guide.choose(prompts, seed))[0]
            self._conditions[task, seed] = chosen.to(self.model.device)
        condition_NLC = self._conditions[task, seed]
        if not hasattr(variant, "generate"):
            mixed: Mapping[str, Tensor] = variant.adapter(condition_NLC)
            return mixed
        with torch.no_grad():
            tokens_THW = variant.network.eval()(condition_NLC.float().unsqueeze(0))[0]
        made: Mapping[str, Tensor] = variant.adapter(tokens_THW)
        return made

    def _prompts_of(self, name: str) -> list[str]:
        from ...datamodules.dnd.tasks import load_task

        if name not in self._prompts:
            entry = self.snapshots.manifest["tasks"][name]
            task = load_task(entry["spec"], limit=entry["limit"], seed=entry["seed"])
            self._prompts[name] = list(dict.fromkeys(e.prompt for e in task.train))
        return self._prompts[name]


def _rank(state: Mapping[str, Any]) -> int:
    return int(next(v.shape[0] for k, v in state.items() if ".lora_A." in k))
