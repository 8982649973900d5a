"""A bank from its folder to the report: collect, train with every option, mix, compare; cut off and gone on with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fulgurite.cli import main
from fulgurite.datamodules.dnd.module import PromptCheckpointDataModule
from fulgurite.datamodules.dnd.snapshots import SnapshotStore
from fulgurite.launch.config.experiment import resolve
from fulgurite.lightning_modules.dnd.bank_compare import compare
from fulgurite.lightning_modules.dnd.collect import collect
from fulgurite.lightning_modules.dnd.generator import TrainedGenerator
from fulgurite.lightning_modules.dnd.hyperconv import HyperConvGenerator
from fulgurite.lightning_modules.dnd.mix import TrainedMixer, mix
from fulgurite.lightning_modules.dnd.train_bank import train
from fulgurite.registry import UserError

BANK = dict(base_model="tiny-random-llama", steps=8, num_snapshots=2, batch_size=4, lr=2e-2, tokens_at_once=2000)
PROMPTS = dict(encoder="tiny-random-encoder", num_prompts=3, prompt_length=16, prompt_pool=16)
CASCADE = dict(shapes=[[3, 16, 32], [16, 10, 34], [64, 10, 34]], chunk=32, batch_size=4)
HELD_OUT = ["held", "chooses"]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank")
    for name, answers in (
        ("yes", ["yes", "no"]), ("up", ["up", "down"]), ("one", ["one", "two", "three"]), ("held", ["in", "out"]),
        ("chooses", None),
    ):  # fmt: skip
        rows = []
        for i in range(60):
            response = answers[i % len(answers)] if answers else f"{name}{i % 4}"
            row: dict[str, Any] = {"prompt": f"{name}: question {i}?", "response": response}
            rows.append(row | ({"choices": answers} if answers else {}))
        for split, part in (("train", rows[:50]), ("test", rows[50:])):
            (folder / f"{name}.{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part))
    return folder


@pytest.fixture(scope="module")
def run(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    collect(out / "store", bank, **BANK)  # type: ignore[arg-type]
    common: dict[str, Any] = {"store": out / "store", "held_out": HELD_OUT, **PROMPTS}
    generator: dict[str, Any] = {**common, **CASCADE, "steps": 4, "llm_tasks": 2, "llm_rows": 2}
    train(out=out / "plain", **generator)
    train(out=out / "retrieval", **{**generator, "retrieval": 2, "llm_steps": 2})
    train(out=out / "centred", **{**generator, "centred": True})
    train(out=out / "product", **{**generator, "loss": "product", "canonical": True})
    train(out=out / "through", **{**generator, "steps": 0, "llm_steps": 3, "begin": out / "plain"})
    mix(out=out / "mixer", **common, shared_steps=4, shared_rows=6, steps=3, tasks=2, rows=4, nearest=2)
    train(out=out / "onto", **{**generator, "steps": 0, "llm_steps": 3, "shared": out / "mixer" / "shared.safetensors"})
    return out


def scored(run: Path, out: Path, **settings: Any) -> dict[str, Any]:
    variants = [run / name for name in ("plain", "centred", "retrieval", "product", "through", "onto", "mixer")]
    control = run / "mixer" / "multi_task.safetensors"
    small = {
        "num_test": 6,
        "num_recovery": 4,
        "draws": 2,
        "shots": 1,
        "mismatched": 2,
        "averaged": 2,
        "few": [1, 2],
        "at_once": 3,
    }
    compare(run / "store", variants, ["held"], out, ["chooses"], control, **{**small, **settings})
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_the_bank_is_whole_and_shares_one_beginning(run: Path) -> None:
    store = SnapshotStore(run / "store")
    assert sorted(store.tasks) == ["chooses", "held", "one", "up", "yes"]
    assert all(store.complete(t) and store.steps(t) == [7, 8] for t in store.tasks)
    key = next(k for k in store.load("yes") if ".lora_A." in k)
    first, second = store.load("yes")[key].flatten(), store.load("up")[key].flatten()
    assert 0.5 < float(torch.nn.functional.cosine_similarity(first, second, dim=0)) < 1 - 1e-6


def test_a_second_call_makes_only_what_is_missing(bank: Path, run: Path, tmp_path: Path) -> None:
    store = SnapshotStore(run / "store")
    kept = store.load("one")
    file = run / "store" / "one" / "000008.safetensors"
    other = run / "store" / "up" / "000008.safetensors"
    before = other.stat().st_mtime_ns
    file.unlink()
    collect(run / "store", bank, **BANK)  # type: ignore[arg-type]
    again = SnapshotStore(run / "store").load("one")
    for key, value in kept.items():
        torch.testing.assert_close(again[key], value, rtol=1e-3, atol=1e-5)
    assert other.stat().st_mtime_ns == before
    with pytest.raises(UserError, match="begun with another tasks"):
        collect(run / "store", bank, **{**BANK, "lr": 1e-3})  # type: ignore[arg-type]


def test_shares_make_the_bank_that_one_call_makes(bank: Path, run: Path, tmp_path: Path) -> None:
    for share in ("1/2", "2/2"):
        assert not (tmp_path / "results.json").exists()
        collect(tmp_path, bank, share=share, **BANK)  # type: ignore[arg-type]
    assert (tmp_path / "results.json").is_file()
    together, apart = SnapshotStore(run / "store"), SnapshotStore(tmp_path)
    assert together.tasks == apart.tasks
    for task in apart.tasks:
        for key, value in together.load(task).items():
            torch.testing.assert_close(apart.load(task)[key], value, rtol=1e-3, atol=1e-5)


def test_a_held_out_task_is_held_out_in_every_seed(bank: Path, tmp_path: Path) -> None:
    file = bank / "held.train.jsonl"  # a task by its spec, as one beside the bank: its name is a path
    spec = f"jsonl:{file}"
    collect(tmp_path, bank, named=[spec], tasks=["yes", "held", spec], seeds=[0, 1], **BANK)  # type: ignore[arg-type]
    data = PromptCheckpointDataModule(str(tmp_path), ["held"], **PROMPTS, chunk=32)  # type: ignore[arg-type]
    data.setup("fit")
    assert [t.name for t in data.tasks] == ["yes", "yes.seed1"]


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ({"rank": 3}, "even rank"),
        ({"share": "3/2"}, "PLACE/WORKERS"),
        ({"num_snapshots": 9}, "of 8 steps"),
        ({"seeds": [1, 1]}, "once"),
    ],
)
def test_settings_that_make_no_bank_are_refused(bank: Path, tmp_path: Path, setting: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        collect(tmp_path / "store", bank, **{**BANK, **setting})


def test_each_option_changes_the_generator_and_a_held_out_task_is_never_read(run: Path) -> None:
    condition_NLC = torch.randn(3, 16, 32, generator=torch.Generator().manual_seed(0))
    made = {}
    for name in ("plain", "centred", "retrieval", "product", "through", "onto"):
        trained = TrainedGenerator.load(run / name)
        assert trained.tasks == ["one", "up", "yes"]
        made[name] = trained.adapter(trained.generate(condition_NLC))
    key = next(iter(made["plain"]))
    assert all(
        not torch.allclose(made["plain"][key], made[n][key])
        for n in ("centred", "retrieval", "product", "through", "onto")
    )
    mixer = TrainedMixer(run / "mixer")
    assert mixer.meta["tasks"] == ["one", "up", "yes"]
    state = mixer.adapter(condition_NLC)
    assert state[key].shape[0] == 4 * 8, "three LoRAs and the shared one, side by side"


def test_a_trained_generator_says_what_it_explains(run: Path, tmp_path: Path) -> None:
    small: dict[str, Any] = {"store": run / "store", "held_out": HELD_OUT, **PROMPTS, **CASCADE, "centred": True}
    told = []
    for steps in (0, 60):
        train(out=tmp_path / str(steps), **small, steps=steps, lr=3e-3)
        told.append(json.loads((tmp_path / str(steps) / "results.json").read_text()))
    (begin, end) = (t["metrics"]["val/loss"] / t["metrics"]["val/loss_constant"] for t in told)
    assert end < 0.7 < 0.9 < begin < 1.3, "it did not learn what differs between the tasks"
    assert "of what the best constant leaves" in told[1]["statements"][0]


def test_what_adds_to_a_shared_adapter_begins_there(run: Path, tmp_path: Path) -> None:
    shared = run / "mixer" / "shared.safetensors"
    small: dict[str, Any] = {"store": run / "store", "held_out": HELD_OUT, **PROMPTS, **CASCADE, "steps": 0}
    train(out=tmp_path / "begin", **small, shared=shared)
    trained = TrainedGenerator.load(tmp_path / "begin")
    for key, value in trained.adapter(trained.generate(torch.randn(3, 16, 32))).items():
        torch.testing.assert_close(value, load_file(shared)[key], rtol=1e-4, atol=1e-6)
    assert float(TrainedGenerator.load(run / "onto").network.gate.detach()) != 0, "the prompts change nothing"


def test_a_task_is_mixed_without_its_own_lora(run: Path) -> None:
    mixer = TrainedMixer(run / "mixer").network
    weight_BK = mixer.weights(torch.randn(3, 3, 16, 32), torch.tensor([0, 1, 2]))
    assert torch.equal(weight_BK.diagonal(), torch.zeros(3))
    assert (weight_BK.sum(1) > 0.5).all()


def test_the_comparison_has_every_control_and_is_not_done_twice(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fulgurite.lightning_modules.dnd import bulk_scoring

    results = scored(run, tmp_path)
    methods = [row[0] for row in results["tables"][0]["rows"]]
    for control in (
        "base", "1 solved examples", "LoRA of the nearest prompts", "soup of all LoRAs", "own LoRA", "multi-task LoRA",
        "mean of the training LoRAs", "plain, mismatched prompts", "plain, mean of its draws", "mixer",
        "plain, 1 prompts",
    ):  # fmt: skip
        assert control in methods, control
    assert [row[0] for row in results["tables"][1]["rows"]] == ["held", "chooses"]
    monkeypatch.setattr(bulk_scoring, "score_together", lambda *a, **k: pytest.fail("scored again"))
    assert scored(run, tmp_path) == results


def test_what_was_trained_on_is_not_held_out(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained on 'yes'"):
        compare(run / "store", [run / "plain"], ["yes"], tmp_path)
    with pytest.raises(UserError, match="what chooses a variant can't judge it"):
        compare(run / "store", [run / "plain"], ["held"], tmp_path, ["held"])
    with pytest.raises(UserError, match="two folders are called 'plain'"):
        compare(run / "store", [run / "plain", run / "store" / ".." / "plain"], ["held"], tmp_path)
    manifest = json.loads((run / "store" / "manifest.json").read_text())
    manifest["tasks"]["held"]["spec"] = manifest["tasks"]["up"]["spec"]
    shutil.copytree(run / "store", tmp_path / "store")
    (tmp_path / "store" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="trained on 'up', whose examples are those of 'held'"):
        compare(tmp_path / "store", [run / "plain"], ["held"], tmp_path)
    with pytest.raises(UserError, match="nothing: no adapter can be read there"):
        compare(run / "store", [run / "plain"], ["held"], tmp_path, multi_task=tmp_path / "nothing")
    with pytest.raises(UserError, match="one of them has to be a generator"):
        compare(run / "store", [run / "mixer"], ["held"], tmp_path)


def test_a_cascade_that_does_not_fit_the_bank_is_refused(run: Path, tmp_path: Path) -> None:
    shapes = {**CASCADE, "shapes": [[3, 16, 32], [63, 10, 34]]}
    with pytest.raises(UserError, match=r"last shape is \[63, 10, 34\], this bank needs \[64, 10, 34\]"):
        train(run / "store", tmp_path / "out", HELD_OUT, **PROMPTS, **shapes)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="for training through the model"):
        train(run / "store", tmp_path / "out", HELD_OUT, shared=run / "mixer" / "shared.safetensors")
    small: dict[str, Any] = {**PROMPTS, **CASCADE, "steps": 0}
    with pytest.raises(UserError, match="a generator of another make"):
        train(run / "store", tmp_path / "out", HELD_OUT, **small, begin=run / "centred")
    with pytest.raises(UserError, match="nothing: no adapter can be read there"):
        train(run / "store", tmp_path / "out", HELD_OUT, **small, shared=tmp_path / "nothing")
    with pytest.raises(UserError, match="tokens or product"):
        train(run / "store", tmp_path / "out", HELD_OUT, loss="logits")


def test_a_cut_off_training_goes_on_to_the_same_generator(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fulgurite.lightning_modules.dnd import bank_training

    small: dict[str, Any] = {"store": run / "store", "held_out": HELD_OUT, **PROMPTS, **CASCADE, "steps": 6}
    saved, steps = bank_training._save, bank_training.Steps
    monkeypatch.setattr(bank_training, "Steps", lambda *a: steps(*a, save_every=2))
    train(out=tmp_path / "whole", **small)

    def die(*arguments: Any) -> None:
        saved(*arguments)
        if arguments[-1] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(bank_training, "_save", die)
    with pytest.raises(KeyboardInterrupt):
        train(out=tmp_path / "cut", **small)
    assert (tmp_path / "cut" / "tokens.resume").is_file() and not (tmp_path / "cut" / "generator.json").exists()
    monkeypatch.setattr(bank_training, "_save", saved)
    train(out=tmp_path / "cut", **small)
    first, second = (TrainedGenerator.load(tmp_path / n).network.state_dict() for n in ("whole", "cut"))
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(("kernel", "millions"), [(3, (11, 13)), (5, (33, 35))])
def test_the_gpu_experiment_has_the_shapes_of_its_base_model(kernel: int, millions: tuple[int, int]) -> None:
    settings = {s.name: s.settings for s in resolve("dnd/gpu").stages}
    shapes = settings["plain"].get("shapes")
    with torch.device("meta"):
        network = HyperConvGenerator(shapes, kernel)
        out = network(torch.empty(1, *shapes[0]))
    assert tuple(out.shape) == (1, 1590, 8 + 2, 192 + 2)
    assert millions[0] < network.num_parameters / 1e6 < millions[1]
    tasks, held_out = settings["collect"].get("tasks"), settings["plain"].get("held_out")
    assert set(held_out) < set(tasks) and len(held_out) == len(settings["test"].get("test")) + 3


def test_the_options_take_over_what_the_gpu_experiment_has_trained() -> None:
    gpu, more = resolve("dnd/gpu"), resolve("dnd/options")
    leading = [s.name for s in gpu.stages[:-1]]
    assert [s.name for s in more.stages[: len(leading)]] == leading
    assert [s.digest(0) for s in more.stages[: len(leading)]] == [s.digest(0) for s in gpu.stages[:-1]]
    held_out = next(s.settings.get("held_out") for s in gpu.stages if s.name == "plain")
    assert all(s.settings.get("held_out") == held_out for s in more.stages[len(leading) : -1])


@pytest.mark.slow
def test_the_gpu_experiment_and_its_options_run_to_their_report_on_a_small_bank(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = {**PROMPTS, "held_out": HELD_OUT}
    generator = {**prompts, **CASCADE, "steps": 2}
    model = {**generator, "steps": 0, "llm_steps": 2, "llm_tasks": 2, "llm_rows": 2}
    small = {
        "base": "dnd/options",
        "title": "small",
        "collect": {**BANK, "bank": str(bank), "named": [], "tasks": ["held", "chooses", "one", "up", "yes"]},
        "mixer": {**prompts, "shared_steps": 2, "shared_rows": 6, "steps": 2, "tasks": 2, "rows": 4, "nearest": 2},
        **{name: generator for name in ("plain", "centred", "product", "canonical")},
        **{name: model for name in ("through", "onto")},
        "retrieval": {**model, "steps": 2},
        "test": {
            "test": ["held"], "val": ["chooses"], "num_test": 6, "num_recovery": 4, "draws": 1, "shots": 1,
            "mismatched": 1, "averaged": 2, "few": [1],
        },
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(json.dumps(small))
    monkeypatch.chdir(tmp_path)
    assert main(["run", "small.yaml"]) == 0
    (folder,) = (tmp_path / "runs" / "small").iterdir()
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done" and len(record["stages"]) == 10
    assert {"test/choice/plain", "test/choice/mixer", "test/choice/own_LoRA"} <= record["metrics"].keys()
    report = (folder / "report.md").read_text()
    assert "the best of our variants (chosen by chooses)" in report
