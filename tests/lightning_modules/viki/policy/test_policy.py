"""The policy against transformers' own forward, processor and generation."""

from __future__ import annotations

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from fulgurite.datamodules.viki.generator import draw_record
from fulgurite.lightning_modules.viki.policy.asked import Asked
from fulgurite.lightning_modules.viki.policy.batch import Prompt
from fulgurite.lightning_modules.viki.policy.folder import new_policy_folder
from fulgurite.lightning_modules.viki.policy.pictures import PictureSettings
from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy
from fulgurite.lightning_modules.viki.policy.small import small_policy
from fulgurite.lightning_modules.viki.policy.text import Texts
from fulgurite.lightning_modules.viki.policy.vision import tower_features
from fulgurite.registry import UserError

TEXTS = ["Put the apple into the bowl.", "<think>\nThe picture shows stompy.\n</think>\n\n<answer>['fetch']</answer>"]


def picture(height, width, seed=0):
    return numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=numpy.uint8)


@pytest.fixture(scope="module")
def policy():
    return small_policy(TEXTS, "tiny").eval()


@pytest.fixture(scope="module")
def prompts():
    """Two pictures of different shapes, one with a system prompt, one without a picture."""
    return [
        Prompt("sys", "Put the apple into the bowl.", [picture(112, 196)]),
        Prompt("", "Put.", [picture(140, 140, 1), picture(112, 196, 2)]),
        Prompt("", "blind"),
    ]


def grid_of(batch):
    return torch.cat([torch.ones(len(batch.grids_I2), 1, dtype=torch.int64), batch.grids_I2], 1)


def test_positions_features_and_logits_are_transformers_own(policy, prompts):
    batch = policy.encode(prompts)
    kinds = (batch.tokens_PN == policy.texts.image).int()
    where, _ = policy.model.model.get_rope_index(
        batch.tokens_PN, kinds, image_grid_thw=grid_of(batch), attention_mask=batch.mask_PN.long()
    )
    assert torch.equal(where[:, batch.mask_PN], batch.positions_APN[:, batch.mask_PN])
    assert batch.next_position_P.tolist() == (batch.positions_APN.amax((0, 2)) + 1).tolist()
    floats = policy.pictures.floats(batch.patches_MC)
    theirs = policy.model.model.visual(floats, grid_thw=grid_of(batch)).pooler_output
    ours = tower_features(policy.model.model.visual, floats, [tuple(grid) for grid in batch.grids_I2.tolist()])
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-4)
    wanted = policy.model(
        input_ids=batch.tokens_PN, attention_mask=batch.mask_PN.long(), pixel_values=floats,
        image_grid_thw=grid_of(batch), position_ids=batch.positions_APN,
    ).logits  # fmt: skip
    hidden = policy.model.model.language_model(
        inputs_embeds=policy.embed(batch), attention_mask=batch.mask_PN.long(), position_ids=batch.positions_APN
    ).last_hidden_state
    torch.testing.assert_close(policy.model.lm_head(hidden)[batch.mask_PN], wanted[batch.mask_PN], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(336, 600), (256, 256), (30, 40), (1500, 2000)])
def test_patches_are_the_published_processor_s(size):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    theirs = Qwen2VLImageProcessorPil()(images=[picture(*size)], return_tensors="pt")
    patches, grid = PictureSettings().patches(picture(*size))
    assert [1, *grid] == theirs["image_grid_thw"][0].tolist()
    torch.testing.assert_close(PictureSettings().floats(patches), theirs["pixel_values"], atol=1e-6, rtol=0)


def test_groups_share_their_prompt_and_lose_nothing(policy, prompts):
    batch = policy.encode(prompts)
    made = policy.generate(batch, group_size=3, max_new_tokens=20, generator=torch.Generator().manual_seed(1))
    assert made.tokens_GL.shape[0] == len(made.texts) == 9 and made.log_probs_GL.dtype == torch.float32
    assert len({tuple(row) for row in made.tokens_GL[:3].tolist()}) > 1, "a group's answers are drawn one by one"
    shared = policy.log_probs(batch, made.tokens_GL, made.mask_GL)
    alone = policy.log_probs(policy.encode([p for p in prompts for _ in range(3)]), made.tokens_GL, made.mask_GL)
    torch.testing.assert_close(shared, made.log_probs_GL, atol=2e-5, rtol=0)
    torch.testing.assert_close(shared, alone, atol=2e-5, rtol=0)
    gradients = []
    for log_probs in (shared, alone):
        policy.zero_grad()
        log_probs.sum().backward()
        gradients.append(policy.model.model.visual.patch_embed.proj.weight.grad.clone())
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, atol=2e-3, rtol=1e-3)


def test_answers_are_written_in_half_precision_too(policy, prompts):
    """As evaluation does on GPUs: keys and values of the prompts then have types of their own."""
    batch = policy.encode(prompts)
    with torch.autocast("cpu", torch.bfloat16):
        made = policy.generate(batch, greedy=True, max_new_tokens=6)
        again = policy.log_probs(batch, made.tokens_GL, made.mask_GL)
    torch.testing.assert_close(made.log_probs_GL, again, atol=0.1, rtol=0)


def test_sampling_follows_the_temperature(policy, prompts):
    batch = policy.encode(prompts[:1])
    made = policy.generate(
        batch, group_size=2, max_new_tokens=6, temperature=0.5, generator=torch.Generator().manual_seed(0)
    )
    again = policy.log_probs(batch, made.tokens_GL, made.mask_GL, temperature=0.5)
    torch.testing.assert_close(again, made.log_probs_GL, atol=2e-5, rtol=0)
    log_probs, entropy = policy.log_probs_and_entropy(batch, made.tokens_GL, made.mask_GL)
    assert not torch.allclose(log_probs, again, atol=1e-3)
    assert ((entropy > 0) & (entropy <= numpy.log(len(policy.texts.special) + 2000))).all()


def test_a_large_vocabulary_s_logits_come_in_parts(policy, prompts, monkeypatch):
    """Log-probabilities, entropies and gradients are those of all logits at once."""
    batch = policy.encode(prompts)
    made = policy.generate(batch, group_size=2, max_new_tokens=6, generator=torch.Generator().manual_seed(0))
    found = []
    for most in (1 << 28, 1):  # all completions at once, and one after the other
        monkeypatch.setattr("fulgurite.lightning_modules.viki.policy.policy._MOST_LOGITS", most)
        policy.zero_grad()
        log_probs, entropy = policy.log_probs_and_entropy(batch, made.tokens_GL, made.mask_GL)
        log_probs.sum().backward()
        gradient = policy.model.model.language_model.embed_tokens.weight.grad.clone()
        found.append((log_probs.detach(), entropy, gradient))
    for whole, parts in zip(*found, strict=True):
        torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)


def test_an_answer_ends_at_its_end_token(policy, prompts):
    """Answers end at different lengths, the rest goes on without them, and texts are what was learned."""
    torch.manual_seed(0)
    taught = small_policy(TEXTS, "tiny", seed=1)
    answers = ["['fetch']", "Put the apple into the bowl.", "stompy"]
    optimizer = torch.optim.AdamW(taught.parameters(), 3e-3)
    batch = taught.encode(prompts, answers)
    for _ in range(60):
        loss = -taught.log_probs(batch, batch.completion_tokens_GL, batch.completion_mask_GL).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = taught.generate(taught.encode(prompts), greedy=True, max_new_tokens=40, group_size=2)
    assert made.texts == [text for text in answers for _ in range(2)]
    assert made.tokens_GL.shape[1] < 40
    lengths = made.mask_GL.sum(1)
    assert len(set(lengths.tolist())) > 1
    assert (made.tokens_GL.gather(1, lengths[:, None] - 1) == taught.texts.end).all()
    assert (made.log_probs_GL[~made.mask_GL] == 0).all()


def test_a_saved_policy_is_read_by_us_and_by_transformers(policy, prompts, tmp_path):
    policy.asked = Asked("short", "global", blind=True)
    policy.save(tmp_path / "policy")
    policy.save(tmp_path / "policy")
    assert [p.name for p in tmp_path.iterdir()] == ["policy"], "nothing is left of the staging"
    again = VikiPolicy.load(tmp_path / "policy").eval()
    policy.asked, asked = Asked(), again.asked
    assert asked == Asked("short", "global", blind=True)
    batch, other = policy.encode(prompts, ["x"] * 3), again.encode(prompts, ["x"] * 3)
    assert torch.equal(batch.tokens_PN, other.tokens_PN)
    torch.testing.assert_close(
        policy.log_probs(batch, batch.completion_tokens_GL, batch.completion_mask_GL),
        again.log_probs(other, other.completion_tokens_GL, other.completion_mask_GL),
    )
    assert Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "policy").config.vision_config.depth == 2
    (tmp_path / "policy" / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError, match=r"is no Qwen2\.5-VL"):
        VikiPolicy.load(tmp_path / "policy")
    with pytest.raises(UserError, match="there is no policy"):
        VikiPolicy.load(tmp_path)


def test_words_that_would_end_the_chat_are_refused(policy):
    for prompt in (Prompt("", "Look at <|image_pad|>."), Prompt("You<|im_end|>", "Put.", [picture(56, 56)])):
        with pytest.raises(UserError, match="a special token of Qwen's"):
            policy.encode([Prompt("", "Put."), prompt])


def test_a_mistyped_folder_is_told_as_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"^runs/policy: there is no such folder, and as a model of the Hub:\nhf:runs/p"
    ):
        VikiPolicy.load("runs/policy", offline=True)


def test_saving_takes_the_place_of_policies_alone(policy, tmp_path):
    """A folder of something else is left as it was, and so is a policy whose successor can't be written."""
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a policy"):
        policy.save(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        policy.save(tmp_path / "note.txt")
    folder = tmp_path / "policy"
    policy.save(folder)
    (folder / "README.md").write_text("old")
    with pytest.raises(ZeroDivisionError), new_policy_folder(folder) as staging:
        staging.mkdir()
        _ = 1 / 0
    assert (folder / "README.md").read_text() == "old" and (folder / "model.safetensors").exists()
    policy.save(folder)
    assert not (folder / "README.md").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["note.txt", "policy"]


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_answer_is_written_and_read_again(text):
    texts = Texts.train(TEXTS, 400)
    for mark in texts.special:
        text = text.replace(mark, "")
    assert texts.decode(texts.answers([text])) == [text]


def test_short_prompts_tell_no_more_than_full_ones():
    activation, plan = draw_record(1, "train", 0, seed=0), draw_record(2, "train", 0, seed=0)
    prompt = Asked("short").prompt(activation)
    assert prompt.system == "which robots" and prompt.instruction == activation.instruction
    told = Asked("short").prompt(plan).system
    for agent, kind in zip(plan.problem.agents, plan.problem.types, strict=True):
        assert f"{agent} {kind}" in told and f"{agent} is a {kind}" in plan.system


# The published config.json's numbers (Qwen2.5-VL-3B-Instruct), and its number of parameters
PUBLISHED = {
    "text_config": {
        "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 2, "max_position_embeddings": 128000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    },
    "vision_config": {
        "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048,
        "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
    "tie_word_embeddings": True,
}  # fmt: skip


def test_the_published_size_takes_our_batches():
    """Shapes on meta tensors: 3,754,622,976 weights, one picture of VIKI-Bench's size, an answer of 4 tokens."""
    with torch.device("meta"):
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**PUBLISHED))
    assert sum(p.numel() for p in model.parameters()) == 3_754_622_976
    policy = VikiPolicy(model, small_policy(TEXTS).texts, PictureSettings(max_pixels=262_144))
    policy.freeze_vision()
    batch = policy.encode([Prompt("s", "Put.", [picture(336, 600)])], ["['fetch']"])
    assert batch.tokens_PN.device.type == "meta" and batch.grids_I2.tolist() == [[24, 42]]
    embeds = policy._language.embed_tokens(batch.tokens_PN)
    assert embeds.shape[-1] == 2048
    floats = policy.pictures.floats(batch.patches_MC)
    assert tower_features(model.model.visual, floats, [(24, 42)]).shape == (24 * 42 // 4, 2048)
    assert not any(p.requires_grad for p in model.model.visual.parameters())
    assert all(p.requires_grad for p in model.model.language_model.parameters())


def test_no_token_is_left_without_anything_to_see(policy, prompts):
    """A row of attention that sees nothing has no softmax: its NaN spoils all in half precision, long after."""
    batch = policy.encode(prompts, ["a", "a longer answer", "b"])
    mask_GL = batch.completion_mask_GL
    seen = policy._seen(torch.cat([batch.mask_PN, mask_GL], 1))
    assert seen.any(-1).all() and not batch.mask_PN.all()
    assert not (seen & ~seen.new_ones(seen.shape[-2:]).tril()).any()
    wanted = policy.log_probs(batch, batch.completion_tokens_GL, mask_GL)
    with torch.autocast("cpu", torch.bfloat16):
        half = policy.log_probs(batch, batch.completion_tokens_GL, mask_GL)
        half.sum().backward()
    torch.testing.assert_close(half, wanted, atol=0.1, rtol=0.02)
    assert all(p.grad.isfinite().all() for p in policy.parameters() if p.grad is not None)
    policy.zero_grad()


def test_released_weights_have_a_name(tmp_path, monkeypatch):
    assert VikiPolicy.load("viki-small").asked.prompts == "short"
    with pytest.raises(UserError, match="viki-smal: there is no policy"):
        VikiPolicy.load("viki-smal")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "viki-small").mkdir()
    with pytest.raises(UserError, match="there is no policy"):
        VikiPolicy.load("viki-small")
