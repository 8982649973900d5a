"""`fulgurite gamecraft play` as a user runs it: an address, a game with a real pipeline, Ctrl-C; and CUDA graphs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from websockets.sync.client import connect

from fulgurite.datamodules.gamecraft.actions import Chord
from fulgurite.lightning_modules.gamecraft.pipeline import GameCraftPipeline
from fulgurite.lightning_modules.gamecraft.play.messages import HEADER
from fulgurite.lightning_modules.gamecraft.play.server import is_loopback
from fulgurite.lightning_modules.gamecraft.play.world import PipelineWorld


def test_the_page_is_served_until_ctrl_c_and_a_key_brings_the_models_frames(weights, child_environment):
    line = [sys.executable, "-m", "fulgurite", "gamecraft", "play", "--weights", str(weights), "--device", "cpu"]
    process = subprocess.Popen(line, env=child_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = process.stdout.readline()
        found = re.fullmatch(r"play at (http://127\.0\.0\.1:\d+)/ .*\n", said)
        assert found, (said, process.stderr and process.stderr.read())
        socket = found[1].replace("http", "ws") + "/play"
        with connect(socket, origin=found[1], compression=None, proxy=None) as page:  # type: ignore[arg-type]
            assert json.loads(page.recv(timeout=10))["starts"] == ["hall"]
            page.send(json.dumps({"type": "keys", "held": ["w"], "seq": 1}))
            while not isinstance(message := page.recv(timeout=30), bytes) or HEADER.unpack_from(message)[1] < 1:
                pass
            assert len(message) == HEADER.size + 32 * 48 * 3
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert "Traceback" not in process.stderr.read() if process.stderr else True
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("0.0.0.0", False), ("box", False)],
)
def test_what_counts_as_this_machine_only(host, expected):
    assert is_loopback(host) is expected


def test_a_port_that_is_taken_is_said_in_a_sentence(weights, running_server, fulgurite_process, tmp_path: Path):
    taken = running_server().address.rstrip("/").rpartition(":")[2]
    line = ["gamecraft", "play", "--weights", str(weights), "--device", "cpu", "--port", taken]
    finished = fulgurite_process(*line)
    assert finished.returncode == 2
    assert f"127.0.0.1:{taken}: can't listen there" in finished.stderr and "Traceback" not in finished.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("compile", [False, True])
def test_graphs_make_the_frames_that_plain_calls_make(weights, compile):
    def film(**settings: bool) -> torch.Tensor:
        pipeline = GameCraftPipeline.from_pretrained(weights, dtype=torch.float32).to("cuda")
        pipeline.set_progress_bar_config(disable=True)
        world = PipelineWorld(pipeline, seed=0, **settings)
        state = world.start(Image.new("RGB", (48, 32), (90, 80, 70)))
        chunks = []
        for key in ("w", "left", "d"):  # the history is a picture, then a clip, then a clip again
            frames, state = world.next_chunk(state, Chord.of(**{key: 1.0}))
            chunks.append(frames)
        return torch.cat(chunks, 1)

    plain, graphed = film(), film(graphs=True, compile=compile)
    assert (plain.int() - graphed.int()).abs().max() <= 2
