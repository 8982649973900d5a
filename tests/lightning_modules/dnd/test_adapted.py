"""The exchangeable adapter and the two scores, on a small random model."""

from __future__ import annotations

import pytest
import torch

from fulgurite.datamodules.dnd.examples import Example
from fulgurite.datamodules.dnd.text import TextFormat, collate
from fulgurite.datamodules.dnd.weight_tokens import WeightTokenizer
from fulgurite.lightning_modules.dnd.adapted import AdaptedModel
from fulgurite.lightning_modules.dnd.product_norm import product_norm_ratios
from fulgurite.lightning_modules.dnd.scoring import normal, score
from fulgurite.registry import UserError

CONFIG = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}
FORM = TextFormat()
EXAMPLES = [
    Example(f"Say {w} once more, please, in the same way.", w if i % 2 else w[:-1], (w, w + "s", "un" + w, w[:-1]))
    for i, w in enumerate(("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"))
]


@pytest.fixture(scope="module")
def adapted() -> AdaptedModel:
    model = AdaptedModel("tiny-random-llama", CONFIG)
    model.reset(0)
    generator = torch.Generator().manual_seed(1)
    for value in model.state().values():
        value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return model


def test_initialisation_depends_on_the_seed_alone(adapted: AdaptedModel) -> None:
    kept = {k: v.clone() for k, v in adapted.state().items()}
    adapted.reset(7)
    first = {k: v.clone() for k, v in adapted.state().items()}
    torch.randn(100)
    adapted.reset(7)
    assert all(torch.equal(first[k], v) for k, v in adapted.state().items())
    assert all((v == 0).all() for k, v in first.items() if ".lora_B." in k)
    adapted.reset(8)
    assert not any(torch.equal(first[k], v) for k, v in adapted.state().items() if ".lora_A." in k)
    adapted.load(kept)


def test_loss_equals_the_model_s_own(adapted: AdaptedModel) -> None:
    batch = collate(adapted.tokenizer, FORM, EXAMPLES[:4], 64)
    own = adapted.peft(input_ids=batch["input_ids"], labels=batch["labels"]).loss
    torch.testing.assert_close(adapted.loss(batch["input_ids"], batch["labels"]), own, rtol=1e-5, atol=1e-6)


def test_a_round_tripped_adapter_scores_the_same(adapted: AdaptedModel) -> None:
    before = score(adapted.peft, adapted.tokenizer, FORM, EXAMPLES)
    kept = {k: v.clone() for k, v in adapted.state().items()}
    tokenizer = WeightTokenizer.from_adapter(kept)
    adapted.load(tokenizer.detokenize(tokenizer.tokenize(kept)))
    assert score(adapted.peft, adapted.tokenizer, FORM, EXAMPLES) == before
    adapted.load(kept)


def test_choices_equal_scoring_each_text_by_itself(adapted: AdaptedModel) -> None:
    right = 0
    for example in EXAMPLES:
        prompt = FORM.prompt_ids(adapted.tokenizer, example.prompt)
        totals = []
        for choice in example.choices:
            answer = FORM.answer_ids(adapted.tokenizer, choice)
            with torch.no_grad():
                logs = adapted.peft(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            totals.append(sum(logs[len(prompt) - 1 + i, token].item() for i, token in enumerate(answer)))
        right += example.choices[totals.index(max(totals))] == example.response
    found = score(adapted.peft, adapted.tokenizer, FORM, EXAMPLES, batch_size=4)
    assert found.choice == pytest.approx(right / len(EXAMPLES)) and right > 0


def test_exact_match_equals_generating_each_by_itself(adapted: AdaptedModel) -> None:
    def answer(prompt: str, length: int) -> str:
        ids = torch.tensor([FORM.prompt_ids(adapted.tokenizer, prompt)])
        options = {"eos_token_id": FORM.end_id(adapted.tokenizer), "pad_token_id": 0, "do_sample": False}
        out = adapted.peft.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, **options
        )
        return normal(adapted.tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))

    # of the five, the even ones ask for what the model says, at the length that the longest of them allows
    asked = [Example(e.prompt, "w" * 5 if i % 2 else answer(e.prompt, 8)) for i, e in enumerate(EXAMPLES[:5])]
    length = max(len(FORM.answer_ids(adapted.tokenizer, e.response)) for e in asked) + 2
    expected = [answer(e.prompt, length) == normal(e.response) for e in asked]
    found = score(adapted.peft, adapted.tokenizer, FORM, asked)
    assert found.choice is None and found.num_examples == 5
    assert found.exact_match == pytest.approx(sum(expected) / 5)


def test_normal_form_of_answers() -> None:
    assert normal(' "Mice". ') == "mice" and normal("mice") == "mice" and normal("3.5.") == "3.5"


def test_an_adapter_of_another_rank_is_refused(adapted: AdaptedModel) -> None:
    state = {
        k: torch.zeros(v.shape[0] * 2 if ".lora_A." in k else v.shape[0], v.shape[1] * (1 if ".lora_A." in k else 2))
        for k, v in adapted.state().items()
    }
    with pytest.raises(UserError, match="another rank"):
        adapted.load(state)
    with pytest.raises(UserError, match=r"is \[8, 64\] instead of \[4, 64\]"):
        WeightTokenizer.from_adapter(dict(adapted.state())).tokenize(state)


def test_modules_that_the_model_lacks_are_named() -> None:
    with pytest.raises(UserError, match="does not fit this model"):
        AdaptedModel("tiny-random-llama", {**CONFIG, "target_modules": ["no_such_proj"]})


def test_product_norm_ratio_sees_a_wrong_scale(adapted: AdaptedModel) -> None:
    state = {k: v.clone() for k, v in adapted.state().items()}
    tokenizer = WeightTokenizer.from_adapter(state)
    twice = {k: v * (2 if ".lora_B." in k else 1) for k, v in state.items()}
    ratios = product_norm_ratios(tokenizer, tokenizer.tokenize(twice), tokenizer.tokenize(state))
    assert set(ratios) == {"q_proj", "v_proj", "down_proj"}
    assert all(r.tolist() == pytest.approx([2, 2], rel=1e-4) for r in ratios.values())
