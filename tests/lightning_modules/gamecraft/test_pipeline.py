"""The pipeline: films from pictures, clips and keys; saved and loaded to the bit; no framework needed to play."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fulgurite.datamodules.gamecraft.actions import Chord, Segment, SpeedLimits, parse_actions
from fulgurite.datamodules.gamecraft.camera import PinholeCamera, ShearPitchCamera, trajectory
from fulgurite.lightning_modules.gamecraft.camera_path import camera_path, chunks_of
from fulgurite.lightning_modules.gamecraft.captions_encoder import CaptionEncoder
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.start_frames import start_frames
from fulgurite.lightning_modules.gamecraft.transformer import GameCraftTransformer
from fulgurite.lightning_modules.gamecraft.vae import GameplayVAE
from fulgurite.registry import UserError

HEIGHT, WIDTH = 32, 48


@pytest.fixture(scope="module")
def pipe() -> GameCraftPipeline:
    """A tiny one with random weights, none zero, in float32, two steps a chunk."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    transformer = GameCraftTransformer.of_size("tiny").eval()
    for parameter in transformer.parameters():
        if parameter.count_nonzero() == 0:
            nn.init.normal_(parameter, std=0.2)
    widths = {"block_out_channels": (4, 4, 4, 4), "decoder_block_out_channels": (4, 4, 4, 4), "norm_num_groups": 2}
    bank = CaptionEncoder()
    bank._states_PLC, bank._mask_PL = torch.randn(3, 16, 384).half(), torch.arange(16) < torch.tensor([[2], [9], [16]])
    bank._rows = {"": 0, "a hall": 1, "a yard": 2}
    vae = GameplayVAE(**widths).eval()
    with torch.no_grad():
        vae.decoder.conv_out.conv.weight *= 8  # so that the picture shows what the latents are
    made = GameCraftPipeline(transformer, vae, bank, HEIGHT, WIDTH, num_inference_steps=2, guidance_w=1.0)
    made.set_progress_bar_config(disable=True)
    return made


def picture(seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def close(one: Tensor, other: Tensor) -> bool:
    """Equal up to a rounding step in few places: a batch is computed in another order than its parts."""
    gap = (one.int() - other.int()).abs()
    return bool(gap.max() <= 2 and gap.float().mean() < 0.05)


def test_a_film_of_any_length(pipe: GameCraftPipeline) -> None:
    frames = pipe(picture(), "w@0.8:40 left:10", "a hall", generator=seeded())
    assert frames.shape == (1, 50, HEIGHT, WIDTH, 3)
    assert frames.dtype == torch.uint8 and frames.device.type == "cpu"
    assert torch.equal(pipe(picture(), parse_actions("w@0.8:40 left:10"), "a hall", generator=seeded()), frames)
    images = pipe(picture(), "w@0.8:40 left:10", "a hall", generator=seeded(), output_type="pil")
    assert len(images) == 1 and len(images[0]) == 50
    assert np.array_equal(np.asarray(images[0][49]), frames[0, 49].numpy())


def test_chunk_by_chunk_is_the_film(pipe: GameCraftPipeline) -> None:
    film = pipe(picture(), "w:33 left@0.5:33", generator=seeded())
    state = pipe.start(picture(), generator=seeded())
    assert state.history_BCThw.shape == (1, 16, 1, HEIGHT // 8, WIDTH // 8)
    first, state = pipe.next_chunk(state, Chord.of(w=1.0))
    assert state.history_BCThw.shape[2] == 9 and state.num_chunks == 1
    second, _ = pipe.next_chunk(state, Chord.of(left=0.5))
    assert torch.equal(torch.cat([first, second], 1), film)


def test_keys_prompt_history_and_noise_each_matter(pipe: GameCraftPipeline) -> None:
    plain = pipe(picture(), "w", generator=seeded())
    for other in (
        pipe(picture(), "s", generator=seeded()),
        pipe(picture(), "w", "a hall", generator=seeded()),
        pipe(picture(1), "w", generator=seeded()),
        pipe(picture(), "w", generator=seeded(1)),
        pipe(picture(), "w", generator=seeded(), guidance_scale=2.0),
        pipe(picture(), "w", generator=seeded(), guidance_w=0.0),
        pipe(picture(), "w", generator=seeded(), num_inference_steps=3),
        pipe(picture(), "w", generator=seeded(), shift=5.0),
    ):
        assert (other != plain).float().mean() > 0.01


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_batch_is_its_films(pipe: GameCraftPipeline, guidance_scale: float) -> None:
    starts, keys, prompts = [picture(0), picture(1)], ["w:40", "a:20 d:20"], ["a hall", ""]
    batch = pipe(starts, keys, prompts, generator=[seeded(0), seeded(1)], guidance_scale=guidance_scale)
    for index in range(2):
        alone = pipe(starts[index], keys[index], prompts[index], generator=seeded(index), guidance_scale=guidance_scale)
        assert close(batch[index], alone[0])


def test_starts_of_many_kinds(pipe: GameCraftPipeline) -> None:
    exact = np.asarray(picture())
    same = [picture(), exact, torch.from_numpy(exact.copy())]
    first, *others = (start_frames(given, HEIGHT, WIDTH) for given in same)
    assert first.shape == (1, 1, 3, HEIGHT, WIDTH)
    assert torch.equal(first[0, 0], torch.from_numpy(exact.copy()).movedim(-1, 0))
    assert all(torch.equal(first, other) for other in others)
    assert start_frames(picture(size=(300, 200)), HEIGHT, WIDTH).shape == (1, 1, 3, HEIGHT, WIDTH)
    clip = np.stack([exact] * 33)
    assert start_frames(clip, HEIGHT, WIDTH).shape == (1, 33, 3, HEIGHT, WIDTH)
    assert start_frames([clip, clip], HEIGHT, WIDTH).shape == (2, 33, 3, HEIGHT, WIDTH)
    assert start_frames(np.stack([clip, clip]), HEIGHT, WIDTH).shape == (2, 33, 3, HEIGHT, WIDTH)
    assert start_frames(np.concatenate([clip] * 3), HEIGHT, WIDTH).shape[1] == 66
    state = pipe.start(np.concatenate([clip, clip]))
    assert state.history_BCThw.shape[2] == 18
    torch.testing.assert_close(state.history_BCThw[:, :, :9], state.history_BCThw[:, :, 9:], atol=1e-5, rtol=0)
    assert pipe.next_chunk(state, Chord.of())[0].shape == (1, 33, HEIGHT, WIDTH, 3)


def test_a_wide_picture_loses_its_sides_not_its_shape() -> None:
    wide = Image.new("RGB", (400, HEIGHT * 2), "red")
    wide.paste(Image.new("RGB", (WIDTH * 2, HEIGHT * 2), "blue"), ((400 - WIDTH * 2) // 2, 0))
    assert start_frames(wide, HEIGHT, WIDTH)[0, 0, 0].max() == 0  # the red sides are cut, the blue middle stays


def test_mistakes_are_told(pipe: GameCraftPipeline, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="clips of 33 frames, not 7 frames"):
        pipe.start(np.zeros((7, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="is no picture"):
        pipe.start(np.zeros((8, 8, 3), np.float32))
    with pytest.raises(UserError, match="all from one picture"):
        pipe.start([picture(), np.zeros((33, 8, 8, 3), np.uint8)])
    with pytest.raises(UserError, match="3 prompts for 1 films"):
        pipe.start(picture(), ["", "", ""])
    with pytest.raises(UserError, match="2 lists of actions for 1 films"):
        pipe(picture(), ["w", "s"])
    with pytest.raises(UserError, match="equally long"):
        pipe([picture(), picture()], ["w:33", "s:34"])
    with pytest.raises(UserError, match="'x' is no key"):
        pipe(picture(), "x")
    with pytest.raises(UserError, match="2 chords for 1 films"):
        pipe.next_chunk(pipe.start(picture()), [Chord.of(), Chord.of()])
    with pytest.raises(UserError, match="uint8 or pil, not 'gif'"):
        pipe(picture(), "w", output_type="gif")
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        GameCraftPipeline.from_pretrained(tmp_path)


@pytest.mark.parametrize("camera", [ShearPitchCamera(HEIGHT, WIDTH), PinholeCamera(HEIGHT, WIDTH, 60.0)])
def test_keys_that_change_within_a_chunk(camera: ShearPitchCamera | PinholeCamera) -> None:
    limits, chord = SpeedLimits(), Chord.of(w=0.7, left=0.4, up=0.9)
    whole = trajectory(chord, 33, limits, pitch_deg=-5.0, camera=camera)
    # the same chord in two runs that are told apart by a key pair that cancels
    twin = Chord.of(w=0.7, left=0.4, up=0.9, a=0.5, d=0.5)
    for mine, exact in zip(
        camera_path([chord] * 20 + [twin] * 13, limits, pitch_deg=-5.0, camera=camera), whole, strict=True
    ):
        np.testing.assert_allclose(mine, exact, atol=1e-12)
    turned, _, pitch = camera_path(
        [Chord.of(up=1.0)] * 3 + [Chord.of(down=1.0)] * 5, limits, pitch_deg=0, camera=camera
    )
    assert len(turned) == 8 and pitch == pytest.approx(2.0)


def test_chunks_hold_the_last_chord() -> None:
    forward, back = Chord.of(w=1.0), Chord.of(s=1.0)
    first, second = chunks_of([Segment(forward, 40), Segment(back, 2)])
    assert first == [forward] * 33
    assert second == [forward] * 7 + [back] * 26


def test_saved_and_loaded_to_the_bit(pipe: GameCraftPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    loaded = GameCraftPipeline.from_pretrained(tmp_path, dtype=torch.float32)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.config.guidance_w == 1.0 and loaded.captions.known == pipe.captions.known
    frames = pipe(picture(), "w:20 left:20", "a yard", generator=seeded())
    assert torch.equal(loaded(picture(), "w:20 left:20", "a yard", generator=seeded()), frames)


PLAY = """
import sys
import numpy as np, torch
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
torch.set_num_threads(1)
pipe = GameCraftPipeline.from_pretrained(sys.argv[1])
start = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
np.save(sys.argv[2], pipe(start, "w:20 left:20", generator=torch.Generator().manual_seed(0)).numpy())
print([m for m in ("lightning", "pytorch_lightning", "jsonargparse", "ray", "omegaconf") if m in sys.modules])
"""


def test_playing_needs_no_framework(
    pipe: GameCraftPipeline, tmp_path: Path, child_environment: Callable[..., dict[str, str]]
) -> None:
    pipe.save_pretrained(tmp_path / "weights")
    command = [sys.executable, "-c", PLAY, str(tmp_path / "weights"), str(tmp_path / "frames.npy")]
    done = subprocess.run(command, env=child_environment(), capture_output=True, text=True, timeout=200, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]"
    here = GameCraftPipeline.from_pretrained(tmp_path / "weights")
    here.set_progress_bar_config(disable=True)
    frames = here(picture(), "w:20 left:20", generator=seeded())
    assert np.array_equal(np.load(tmp_path / "frames.npy"), frames.numpy())
