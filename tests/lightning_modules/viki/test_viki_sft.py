"""Supervised finetuning of small policies on records without geometry, with pictures that tell one thing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy
import pytest
import torch
from lightning.pytorch import Trainer

from fulgurite.datamodules.draws import Shuffled
from fulgurite.datamodules.viki.checker import check_plan
from fulgurite.datamodules.viki.encoding import encode
from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.datamodules.viki.lengths import AlikeInLength
from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule, chosen_images, decode, spread
from fulgurite.datamodules.viki.plans import find_answer, literal
from fulgurite.datamodules.viki.records import write_records
from fulgurite.lightning_modules.viki.picture_words import PictureWords
from fulgurite.lightning_modules.viki.policy.batch import Prompt
from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy
from fulgurite.lightning_modules.viki.policy.small import small_policy
from fulgurite.lightning_modules.viki.scoring import Score
from fulgurite.lightning_modules.viki.sft import VikiSFTModule
from fulgurite.registry import UserError


def adamw(parameters):
    return torch.optim.AdamW(parameters, lr=3e-3)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Level 1 records whose answer is the colour of the picture: black for H1, blue for Stompy."""
    out = tmp_path_factory.mktemp("sft")
    for split, count in (("train", 48), ("val", 8), ("test", 8)):
        records = []
        for index in range(count):
            name, colour = (("unitree_h1", 20), ("stompy", 230))[index % 2]
            image = encode(numpy.full((56, 56, 3), colour, numpy.uint8))
            record = replace(draw_record(1, "train", 0, seed=0), index=index, ground_truth=f"['{name}']", scene=None)
            records.append(replace(record, images=(image,), views=("global",)))
        write_records(out / split / "part-00000.parquet", records)
    return out


def fit(data, folder, steps, **settings):
    module = VikiTrajectoryDataModule(
        str(data), batch_size=8, num_batches=steps, with_thoughts=False, prompts="short", alike=2, **settings
    )
    model = VikiSFTModule("tiny", warmup_steps=5, max_new_tokens=16, optimizer=adamw)
    trainer = Trainer(
        max_epochs=1, accelerator="cpu", default_root_dir=folder, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(model, module)
    return trainer, model, module


def test_a_policy_learns_to_look_and_a_blind_one_can_not(data, tmp_path):
    trainer, model, module = fit(data, tmp_path / "seeing", 80)
    seen = dict(trainer.callback_metrics)
    assert seen["val/accuracy_l1"] == 1 and seen["val/format_l1"] == 0, "an answer without thoughts has not the form"
    table = model.results()["tables"][0]
    assert sum(row[2] for row in table["rows"]) == 8 and table["rows"][0][3] == 1
    trainer.test(model, module, verbose=False)
    assert trainer.callback_metrics["test/accuracy_l1"] == 1
    policy = VikiPolicy.load(tmp_path / "seeing" / "policy").eval()
    assert policy.asked.prompts == "short" and not policy.asked.blind
    assert policy.asked.picture_sizes == {"1": (56, 56)}
    records = module.records("test")
    made = policy.generate(policy.encode([policy.asked.prompt(r) for r in records]), greedy=True, max_new_tokens=16)
    assert made.texts == [f"<answer>{r.ground_truth}</answer>" for r in records]
    blind, _, _ = fit(data, tmp_path / "blind", 80, blind=True)
    assert blind.callback_metrics["val/accuracy_l1"] == 0.5
    unseeing = VikiPolicy.load(tmp_path / "blind" / "policy").asked
    assert unseeing.blind and not unseeing.picture_sizes


def test_only_the_answer_is_learned_and_padding_counts_for_nothing(data, tmp_path):
    _, model, module = fit(data, tmp_path, 1)
    batch = next(iter(module.val_dataloader()))
    model.policy.eval()
    alone = [{name: values[k : k + 1] for name, values in batch.items()} for k in range(8)]
    batch["instruction"] = [text + " Please." * k for k, text in enumerate(batch["instruction"])]
    for k, one in enumerate(alone):
        one["instruction"] = batch["instruction"][k : k + 1]
    with torch.no_grad():
        together, _ = model._losses(batch)
        parts = [(model._losses(one)[0], len(model.policy.texts.answers(one["response"])[0])) for one in alone]
    weighted = sum(loss * tokens for loss, tokens in parts) / sum(tokens for _, tokens in parts)
    torch.testing.assert_close(together, weighted, atol=1e-5, rtol=1e-5)


def test_what_can_not_be_trained_is_told(data, tmp_path):
    for policy, says in (("huge", "there is no policy"), (str(tmp_path), "there is no policy")):
        module = VikiTrajectoryDataModule(str(data), with_thoughts=False)
        trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
        with pytest.raises(UserError, match=says):
            trainer.fit(VikiSFTModule(policy), module)
    with pytest.raises(UserError, match="only generated records"):
        VikiTrajectoryDataModule(str(data)).setup("fit")


def test_several_levels_are_learned_together(data, tmp_path):
    write_records(tmp_path / "train.parquet", [draw_record(2, "train", k, seed=0) for k in range(6)])
    module = VikiTrajectoryDataModule([str(data), str(tmp_path)], 54, 1, with_thoughts=False)
    (batch,) = module.train_dataloader()
    assert Counter(record.level for record in batch["record"]) == {1: 48, 2: 6}
    assert {record.level for record in module.records("val")} == {1}, "a folder may lack a split"
    texts = module.texts(9)
    assert len(texts) == 27 and module.records("train")[0].instruction in texts


def test_demonstrations_can_have_one_robot_act_at_a_time(tmp_path):
    """Such plans reach the goal as well, in more steps."""
    write_records(tmp_path / "train.parquet", [draw_record(2, "train", k, seed=0) for k in range(40)])
    module = VikiTrajectoryDataModule(str(tmp_path), 40, 1, serial=True)
    longer = 0
    for example in map(module._example, module.records("train")):
        plan = literal(find_answer(example["response"]))
        assert all(len(row["actions"]) == 1 for row in plan)
        assert f"That takes {len(plan)} steps." in example["response"]
        assert check_plan(example["ground_truth"], plan, strict=True).ok
        longer += len(plan) > len(example["ground_truth"]["time_steps"])
    assert longer > 10


def test_batches_of_like_length_hold_every_draw_once():
    lengths = Shuffled(list(range(64)), seed=3)
    stream = AlikeInLength(Shuffled(list(range(64)), seed=3), lengths, batch_size=4, window=8)
    drawn = [stream[k] for k in range(128)]
    assert sorted(drawn) == sorted([*range(64), *range(64)])
    assert [stream[k] for k in (70, 3, 127)] == [drawn[k] for k in (70, 3, 127)], "a draw depends on its number alone"
    spans = [max(drawn[k : k + 4]) - min(drawn[k : k + 4]) for k in range(0, 128, 4)]
    assert numpy.mean(spans) < 16, "of 32 that are sorted, four neighbours"
    firsts = [min(drawn[k : k + 4]) for k in range(0, 32, 4)]
    assert firsts != sorted(firsts), "batches come in a drawn order"


def test_views_can_be_left_out():
    pictures = tuple(encode(numpy.full((28, 28, 3), grey, numpy.uint8)) for grey in (0, 100, 200))
    record = replace(draw_record(2, "train", 0, seed=0), images=pictures, views=("R1", "global", "R2"))
    assert chosen_images(record, "all") == pictures
    assert decode(chosen_images(record, "global")[0]).mean() == pytest.approx(100, abs=1)
    assert spread([record] * 10, 3) == [record] * 3 and len(spread([record] * 2, 5)) == 2


def test_picture_tokens_learn_the_words_that_only_pictures_tell():
    """Words that all answers share, or none has, are no loss; the others' loss reaches the pixels."""
    policy = small_policy(["['fetch'] stompy"], "tiny")
    pictures = [numpy.full((56, 56, 3), grey, numpy.uint8) for grey in (0, 255)]
    prompts = [Prompt("", "x", [pictures[0], pictures[0]]), Prompt("", "x", [pictures[1]])]
    batch = policy.encode(prompts, ["fetch", "stompy"])
    words = PictureWords(128, policy.model.config.get_text_config().vocab_size)
    features = policy.picture_features(batch)
    loss = words(features, batch, policy.texts.image)
    loss.backward()
    assert policy.model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0
    told = [set(row) for row in policy.texts.answers(["fetch", "stompy"])]
    touched = set(words.head.bias.grad.nonzero()[:, 0].tolist())
    assert touched == told[0] ^ told[1]
    with torch.no_grad():  # each picture says its own word loudly, in one of its tokens
        words.head.weight.zero_()
        words.head.weight[list(told[0] - told[1])] = 20 * torch.nn.functional.normalize(features[:1] - features[-1:])
        words.head.weight[list(told[1] - told[0])] = 20 * torch.nn.functional.normalize(features[-1:] - features[:1])
    assert words(features, batch, policy.texts.image) < loss
    same = policy.encode(prompts, ["fetch", "fetch"])
    assert words(policy.picture_features(same), same, policy.texts.image) == 0


def test_level_3_s_accuracy_is_told_with_what_it_is_worth():
    module = VikiSFTModule()
    for scores, told in (([Score(1, "1-1", 1, 1.0)], False), ([Score(1, "1-1", 1, 1.0), Score(3, "", 1, 0.9)], True)):
        module._keep_table(scores, "test")
        assert ("Level 3: The released accuracy hardly falls" in module._tables[-1]["note"]) is told
    assert [len(table["rows"]) for table in module._tables] == [2]
