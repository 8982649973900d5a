"""dnd/smoke as a whole: every stage leaves what the next one and the report need."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from fulgurite.cli import main
from fulgurite.datamodules.dnd.module import PromptCheckpointDataModule
from fulgurite.datamodules.dnd.snapshots import SnapshotStore
from fulgurite.launch.config.experiment import resolve
from fulgurite.lightning_modules.dnd.generator import TrainedGenerator
from fulgurite.lightning_modules.dnd.hyperconv import HyperConvGenerator
from fulgurite.registry import UserError


@pytest.fixture(scope="module")
def store(smoke_run: Path) -> SnapshotStore:
    return SnapshotStore(smoke_run / "collect" / "snapshots")


@pytest.fixture(scope="module")
def data(smoke_run: Path, store: SnapshotStore) -> PromptCheckpointDataModule:
    module = PromptCheckpointDataModule(
        str(store.folder),
        ["third_person"],
        "tiny-random-encoder",
        4,
        16,
        prompt_pool=16,
        chunk=32,
        batch_size=2,
        seed=1,
    )
    module.setup("fit")
    return module


def test_all_adapters_begin_at_one_initialisation(store: SnapshotStore) -> None:
    assert store.tasks == ["plural", "past_tense", "third_person"]
    first = {task: store.load(task, store.steps(task)[0]) for task in store.tasks}
    key = next(k for k in first["plural"] if ".lora_A." in k)
    a, b = first["plural"][key], first["past_tense"][key]
    assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.9
    assert not torch.equal(a, b)
    assert all(len(store.steps(task)) == 4 for task in store.tasks)
    steps = store.steps("plural")
    assert not torch.equal(store.load("plural", steps[0])[key], store.load("plural", steps[-1])[key])


def test_the_held_out_task_never_reaches_the_generator(smoke_run: Path, data: PromptCheckpointDataModule) -> None:
    assert [t.name for t in data.tasks] == ["plural", "past_tense"]
    assert TrainedGenerator.load(smoke_run / "generator" / "generator").tasks == ["plural", "past_tense"]


def test_pairs_share_their_task_and_are_drawn_afresh(data: PromptCheckpointDataModule) -> None:
    loader = data.train_dataloader()
    pairs = loader.dataset
    seen = set()
    for draw in range(40):
        condition_NLC, tokens_THW, task = pairs[draw]
        own = data.tasks[task]
        assert any(torch.equal(tokens_THW, snapshot) for snapshot in own.tokens_STHW)
        pool = own.train_DPLC.flatten(0, 1)
        assert all((pool == prompt).all(-1).all(-1).any() for prompt in condition_NLC)
        assert len({tuple(p.flatten()[:64].tolist()) for p in condition_NLC}) == len(condition_NLC), (
            "a prompt was drawn twice"
        )
        seen.add((task, tuple(condition_NLC.flatten()[:64].tolist())))
        again = pairs[draw]
        assert torch.equal(again[0], condition_NLC) and torch.equal(again[1], tokens_THW)
    assert len(seen) > 30, "prompt batches repeat"


def test_unknown_held_out_task_is_named(store: SnapshotStore) -> None:
    module = PromptCheckpointDataModule(str(store.folder), ["third_persn"], "tiny-random-encoder", 4, 16)
    with pytest.raises(UserError, match="third_person"):
        module.setup("fit")


def test_report_says_whether_the_generator_learned(smoke_run: Path) -> None:
    report = (smoke_run / "report.md").read_text()
    for sentence in (
        "of the target's mean square", "the best constant leaves", "Sizes on held-out prompts", "nearest to their own",
        "Coverage",
    ):  # fmt: skip
        assert sentence in report
    for control in (
        "base, format hint",
        "solved example",
        "soup of all LoRAs",
        "nearest prompts",
        "mismatched",
        "own LoRA",
        "blind",
    ):
        assert control in report, control
    record = json.loads((smoke_run / "record.json").read_text())
    assert record["status"] == "done" and "test/choice/generator" in record["metrics"]


def test_the_test_stage_goes_on_from_the_scores_it_has_and_only_from_those(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from fulgurite.lightning_modules.dnd import progress, scoring
    from fulgurite.lightning_modules.dnd.evaluate import evaluate

    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    counted = []
    whole = scoring.score
    monkeypatch.setattr(scoring, "score", lambda *a, **k: counted.append(1) or whole(*a, **k))
    folders = smoke_run / "generator" / "generator", smoke_run / "collect" / "snapshots"
    evaluate(*folders, "third_person", tmp_path, num_test=6, num_recovery=4, draws=1, shots=1)
    first = (tmp_path / "results.json").read_text()
    told = capsys.readouterr().err
    assert "adapters on 'third_person': 1 of " in told and "training tasks: 2 of " in told
    rows, counted[:] = len(counted), []
    evaluate(*folders, "third_person", tmp_path, num_test=6, num_recovery=4, draws=1, shots=1)
    assert not counted and (tmp_path / "results.json").read_text() == first
    next((tmp_path / "scores").glob("soup-*")).unlink()
    evaluate(*folders, "third_person", tmp_path, num_test=6, num_recovery=4, draws=1, shots=1)
    assert len(counted) == 1
    counted.clear()
    evaluate(
        *folders, "third_person", tmp_path, num_test=7, num_recovery=3, draws=1, shots=1
    )  # other examples: nothing old counts
    assert len(counted) == rows
    with pytest.raises(UserError, match="training task"):
        evaluate(*folders, "plural", tmp_path / "x")


def test_a_fit_cut_off_after_its_last_step_still_reports(
    smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "runs" / "dnd" / "smoke" / smoke_run.name
    shutil.copytree(smoke_run, copied)
    state = json.loads((copied / "run.json").read_text())
    state["stages"]["generator"]["state"] = "running"
    (copied / "run.json").write_text(json.dumps(state))
    before = json.loads((copied / "generator" / "results.json").read_text())
    (copied / "generator" / "results.json").unlink()
    monkeypatch.chdir(tmp_path)
    assert main(["run", "dnd/smoke"]) == 0
    assert json.loads((copied / "generator" / "results.json").read_text()) == before


def test_another_seed_makes_other_snapshots(smoke_run: Path) -> None:
    stages = {s.name: s.settings for s in resolve("dnd/tiny").stages}
    for stage, path in (("collect", "model.init_args.init_seed"), ("collect", "data.init_args.seed"),
                        ("generator", "data.init_args.seed")):  # fmt: skip
        assert stages[stage].get(*path.split(".")) == "${seed_everything}"
    assert stages["test"].get("seed") == "${seed}"


@pytest.mark.parametrize(
    "flag", ["--trainer.accumulate_grad_batches=2", "--trainer.max_steps=5", "--model.num_snapshots=0"]
)
def test_settings_under_which_steps_and_tasks_do_not_meet_are_refused(
    flag: str, inflections: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model.base_model=tiny-random-llama", "--data.base_model=tiny-random-llama", "--data.steps_per_task=10"]
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "dnd/lora", "--model.store=store", *small, flag]) == 2
    told = capsys.readouterr().err
    assert any(word in told for word in ("accumulation", "the tasks take 10", "num_snapshots is 0")), told


def test_published_numbers_keep_their_names() -> None:
    for name in ("dnd/tiny", "dnd/paper"):
        published = resolve(name).meta["published"]
        assert published and all(isinstance(v, int | float) for v in published.values())


def test_a_cascade_that_does_not_fit_the_data_is_refused(smoke_run: Path, data: PromptCheckpointDataModule) -> None:
    from types import SimpleNamespace

    from fulgurite.lightning_modules.dnd.module import DnDModule

    module = DnDModule([[5, 16, 32], [64, 4, 34]], kernel_size=3)
    module.trainer = SimpleNamespace(datamodule=data)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"first shape is \[5, 16, 32\], this data needs \[4, 16, 32\]"):
        module.setup("fit")


def test_published_setting_resolves_and_has_the_published_shapes() -> None:
    experiment = resolve("dnd/paper")
    settings = {s.name: s.settings for s in experiment.stages}
    shapes = settings["generator"].get("model", "init_args", "shapes")
    kernel = settings["generator"].get("model", "init_args", "kernel_size")
    with torch.device("meta"):
        network = HyperConvGenerator(shapes, kernel)
        out = network(torch.empty(2, *shapes[0]))
    assert tuple(out.shape) == (2, 4296, 10, 130)
    assert 1.10e9 < sum(p.numel() for p in network.parameters()) < 1.12e9
    rank, chunk = (
        settings["collect"].get("model", "init_args", "rank"),
        settings["generator"].get("data", "init_args", "chunk"),
    )
    assert shapes[-1][1:] == [rank + 2, chunk + 2]
