"""A tiny policy with random weights and a few symbolic records, shared by the tests of GRPO."""

from __future__ import annotations

import pytest

pytest.importorskip("pyarrow", reason="needs the extra viki")


@pytest.fixture(scope="session")
def records_folder(tmp_path_factory):
    from fulgurite.datamodules.viki.generator import draw_record
    from fulgurite.datamodules.viki.records import write_records

    folder = tmp_path_factory.mktemp("records")
    for split, count in (("train", 24), ("val", 6), ("test", 6)):
        write_records(folder / f"{split}.parquet", [draw_record(1, split, i, 0) for i in range(count)])
    return folder


@pytest.fixture(scope="session")
def data(records_folder):
    from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule

    return VikiTrajectoryDataModule(str(records_folder), batch_size=4, num_batches=3, stage="rl", blind=True)


@pytest.fixture(scope="session")
def policy_folder(tmp_path_factory, data):
    from fulgurite.lightning_modules.viki.policy.asked import Asked
    from fulgurite.lightning_modules.viki.policy.small import small_policy

    policy = small_policy(data.texts(), "tiny")
    policy.asked = Asked(prompts="short", blind=True)
    folder = tmp_path_factory.mktemp("policies") / "policy"
    policy.save(folder)
    return folder


@pytest.fixture
def make_config(policy_folder, data):
    """`make_config(lr=...)`: a small GRPOConfig over those records."""

    def make(policy=policy_folder, **settings):
        from fulgurite.lightning_modules.viki.grpo.algorithm import GRPOConfig
        from fulgurite.lightning_modules.viki.grpo.record_bank import spec_of

        small = {
            "data": spec_of(data),
            "group_size": 3,
            "max_new_tokens": 10,
            "lr": 1e-2,
            "minibatch_prompts": 2,
            "micro_prompts": 1,
        }
        config = GRPOConfig().training(policy=str(policy), **{**small, **settings})
        return config.debugging(seed=0, log_level="ERROR")

    return make
