"""Lightning's loop and RLlib's parts take the same first steps; what RLlib would not read is refused."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Trainer

from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule
from fulgurite.lightning_modules.viki.grpo import rollout
from fulgurite.lightning_modules.viki.grpo.module import VikiGRPOModule
from fulgurite.lightning_modules.viki.grpo.rollout import load_policy
from fulgurite.lightning_modules.viki.policy.policy import VikiPolicy
from fulgurite.lightning_modules.viki.rewards import Reward
from fulgurite.registry import UserError

pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")

SETTINGS = {
    "group_size": 3, "max_new_tokens": 10, "lr": 1e-4, "minibatch_prompts": 2, "micro_prompts": 1, "draw_prompts": 3,
}  # fmt: skip


def test_both_loops_take_the_same_steps(policy_folder, data, make_config, monkeypatch, tmp_path):
    """Four prompts, two minibatches: the second sees what the first has learned."""
    from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec

    from fulgurite.lightning_modules.viki.grpo.algorithm import pack
    from fulgurite.lightning_modules.viki.grpo.env_runner import GenerationEnvRunner

    worth = lambda record, text, length_counts: Reward(0.0, 0.0, len(text) % 3 / 2)  # noqa: E731
    monkeypatch.setattr(rollout, "reward_of", worth)  # random weights never answer right
    module = VikiGRPOModule(str(policy_folder), **SETTINGS)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_train_batches=1, limit_val_batches=0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    config = make_config(**SETTINGS)
    specs = MultiRLModuleSpec(rl_module_specs={"default_policy": config.get_default_rl_module_spec()})
    learner = config.get_default_learner_class()(config=config, module_spec=specs)
    learner.build()
    episodes = GenerationEnvRunner(config=config, worker_index=0).sample(draws=[0, 1, 2, 3])
    batch = pack(episodes, config.grpo_settings(), 0)
    learner.update(batch=batch, timesteps={}, num_epochs=1, minibatch_size=6, shuffle_batch_per_epoch=False)
    ours, theirs = module.policy.state_dict(), learner.module["default_policy"].policy.state_dict()
    before = VikiPolicy.load(policy_folder).state_dict()
    assert max(float((ours[name] - before[name]).abs().max()) for name in ours) > 1e-4
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"num_batches": 7}, "rllib.iterations"),
        ({"val_batches": 2}, "rllib.evaluation_size"),
        ({"alike": 4}, "data.alike"),
        ({"num_workers": 1}, "rllib.num_env_runners"),
    ],
)
def test_settings_that_rllib_would_not_read_are_refused(policy_folder, records_folder, given, says):
    data = VikiTrajectoryDataModule(str(records_folder), batch_size=2, stage="rl", **given)
    with pytest.raises(UserError, match=says):
        VikiGRPOModule(str(policy_folder), minibatch_prompts=2).rllib_config(data)


def test_a_policy_is_asked_as_in_training_unless_the_data_says_otherwise(policy_folder, records_folder):
    for given, wanted in (({}, "short"), ({"prompts": "full"}, "full")):
        data = VikiTrajectoryDataModule(str(records_folder), stage="rl", **given)
        assert load_policy(str(policy_folder), data.hparams).asked.prompts == wanted
