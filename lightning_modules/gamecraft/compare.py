"""`fulgurite gamecraft compare`: trained variants side by side on maps they never saw; the ablation ends in it."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ...datamodules.files import write_json
from ...registry import COMMANDS, UserError


@COMMANDS.register("gamecraft compare", paper="2506.17201")
def compare(
    data: Path, vae: Path, idm: Path, models: dict[str, Path], out: Path,
    groups: dict[str, dict[str, str]] | None = None, num_chunks: int = 128, num_starts: int = 48, num_steps: int = 25,
    batch_size: int = 48, feature_distance: bool = True, frame_stride: int = 4, flow_stride: int = 8, seed: int = 0,
) -> None:  # fmt: skip
    """Compare trained variants: Fréchet distance, dynamics, control of twelve actions, prediction, each from a clip and
    from one frame.

    Args:
        data: folder of the data set; its test, counterfactual and val folders are read.
        vae: folder of the trained autoencoder.
        idm: folder of the trained inverse-dynamics network.
        models: name -> folder of the trained transformer, `<stage>/transformer`; the first is what the others are
            compared with.
        out: folder for results.json.
        groups: group -> label -> name of a model, for the table; one group of all unless given.
        num_chunks: real chunks to predict, drawn by seed.
        num_starts: starts of the twelve actions.
        num_steps: Euler steps; guidance and shift are those of each model's training.
        batch_size: chunks generated at once.
        feature_distance: judge by EfficientNet-Lite0 too; it is fetched if the cache lacks it.
        frame_stride: frames between two that the feature distance looks at.
        flow_stride: pairs of frames between two that the flow is measured on.
        seed: of every draw.
    """
    if not models:
        raise UserError("nothing to compare: name at least one model, --models.NAME FOLDER")
    import torch

    from .evaluation.chunks import Trained, load_vae
    from .evaluation.comparison import CLIP, FRAME, Variant, check_groups, compare_variants
    from .evaluation.judges import Judges
    from .inverse_dynamics import InverseDynamicsNet
    from .metrics.perceptual import EfficientNetLite0

    grouped = check_groups(groups or {}, list(models))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    autoencoder = load_vae(vae, device)
    variants = []
    for key, folder in models.items():
        trained = Trained.load(folder, device)
        from_clip, from_frame = (
            trained.model(f"{key}, from {shown}", autoencoder, num_steps, one_frame=shown == FRAME)
            for shown in (CLIP, FRAME)
        )
        variants.append(Variant(key, from_clip, from_frame))
    net = EfficientNetLite0.pretrained().to(device) if feature_distance else None
    judges = Judges(InverseDynamicsNet.load(idm)[0].to(device), net, frame_stride, flow_stride)
    Console(stderr=True).print(
        f"compare: {len(variants)} models, {num_starts} starts, {num_chunks} chunks", highlight=False
    )
    found = compare_variants(data, variants, grouped, autoencoder, judges, num_chunks, num_starts, batch_size, seed)
    write_json(out / "results.json", {"schema_version": 1, **found, "figures": []})
