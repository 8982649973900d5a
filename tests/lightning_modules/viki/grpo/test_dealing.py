"""What GRPO deals to its runners, without a cluster: all levels in an evaluation, errors that always strike."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("ray.rllib", reason="needs the extra viki (ray)")


@pytest.fixture
def algorithm():
    from fulgurite.lightning_modules.viki.grpo import algorithm

    return algorithm


@pytest.mark.parametrize("runners", [0, 1, 3])
def test_an_evaluation_takes_records_evenly_from_all_levels(algorithm, tmp_path, runners):
    from fulgurite.datamodules.viki.generator import draw_record
    from fulgurite.datamodules.viki.module import VikiTrajectoryDataModule
    from fulgurite.datamodules.viki.records import write_records
    from fulgurite.lightning_modules.viki.grpo.record_bank import open_bank, spec_of
    from fulgurite.lightning_modules.viki.rewards import Reward

    for level in (1, 2):
        for split in ("train", "val"):
            drawn = [draw_record(level, split, i, 0) for i in range(6)]
            write_records(tmp_path / f"l{level}" / f"{split}.parquet", drawn)
    data = spec_of(VikiTrajectoryDataModule([str(tmp_path / f"l{level}") for level in (1, 2)], stage="rl", blind=True))
    records, asked = open_bank(data).data.records("val"), []

    def answered(jobs, key):
        asked.extend(job["records"] for job in jobs)
        told = [{"level": records[n].level, "reward": Reward(1.0, 1.0, 1.0)} for job in jobs for n in job["records"]]
        return [[SimpleNamespace(custom_data=one) for one in told]]

    config = SimpleNamespace(data=data, evaluation_duration=4, num_env_runners=runners)
    found = algorithm.GRPO.evaluate(SimpleNamespace(config=config, _deal=answered))["env_runners"]
    assert sorted(n for numbers in asked for n in numbers) == [0, 3, 6, 9] and len(asked) == max(1, runners)
    assert found["l1_count"] == found["l2_count"] == 2


@pytest.mark.parametrize(("error", "text"), [(ValueError("of the job"), "of the job"), (None, "no env runner")])
def test_an_error_that_always_strikes_shows_itself(algorithm, monkeypatch, error, text):
    monkeypatch.setattr(algorithm, "_PATIENCE_S", -1.0)

    def sample(draws):
        if error:
            raise error

    group = SimpleNamespace(num_remote_env_runners=lambda: 1, healthy_env_runner_ids=list)
    dealer = SimpleNamespace(env_runner_group=group, env_runner=SimpleNamespace(sample=sample))
    with pytest.raises(type(error) if error else RuntimeError, match=text):
        algorithm.GRPO._deal(dealer, [{"draws": [0]}], None)
