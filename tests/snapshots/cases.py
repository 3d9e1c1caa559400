"""What snapshots are made of: every form, sparsity and encoder trained for 50 steps and analysed, and a harvest.

    python tests/snapshots/cases.py --out FILE [--backend reference cpp] [--only TEXT]

It writes one hash for each number that must not change. It uses public names alone, so that the same script runs on an
older commit (`make snapshots BASE=<commit>`). Bits depend on the machine, on PyTorch and on the number of threads: both
sides must be made on one machine, with one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import groupcc

GROUP, G, D, STEPS = "D4", 8, 10, 50

FORMS: dict[str, dict[str, Any]] = {
    "untied": {"n_latents": 24},
    "untied-max": {"n_latents": 48, "pose": "max"},
    "untied-nms": {"n_latents": 48, "pose": "nms"},
    "tied-max": {"n_latents": 6, "tied": True},
    "tied-nms": {"n_latents": 6, "tied": True, "pose": "nms"},
    "residual-max": {"n_latents": 6, "tied": "residual"},
    "residual-nms": {"n_latents": 6, "tied": "residual", "pose": "nms", "residual_penalty": 0.1},
    "residual-inf": {"n_latents": 6, "tied": "residual", "residual_penalty": float("inf")},
}
# Where l1 reads poses by suppression, k is how many it looks for at first, and so the width of its rows of latents. The
# default was 32 and is 16 now.
L1 = {"sparsity": "l1", "l1_coefficient": 3e-3, "k": 32}
SPARSITIES: dict[str, dict[str, Any]] = {
    "topk": {"k": 3},
    "batchtopk": {"sparsity": "batchtopk", "k": 3},
    "l1": L1,
    "l1-concat": {**L1, "l1_penalty": "concat"},
}
TRAINING: dict[str, dict[str, Any]] = {
    "plain": {},
    "rich": {"augment": True, "init_W_dec": "examples", "resample_every": 10, "eval_every": 20, "init_b_dec": "mean"},
}
ATLAS_TENSORS = ("autocorrelation", "block_norms", "spectrum", "dead", "similarities", "frequency", "mean_act")
ATLAS_TENSORS += ("pose_counts", "residual_share")


class Planted:
    """Orbits of 80 images, 8 positions each: sums of translates of 7 shapes, some of them symmetric."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        group = groupcc.group(GROUP)
        right = torch.from_numpy(group.right_translation.copy())
        shapes = torch.randn(7, G, D, generator=generator)
        half_turn = 2  # in D4 the elements 0, 1, 2, 3 are rotations by 0°, 90°, 180°, 270°
        shapes[0] = shapes[0].mean(0)
        shapes[1] = (shapes[1] + shapes[1][right[half_turn]]) / 2
        shapes[2] = (shapes[2] + shapes[2][right[G // 2]]) / 2
        n = 640
        chosen = torch.randint(7, (n, 2), generator=generator)
        moved = torch.randint(G, (n, 2), generator=generator)
        strength = torch.rand(n, 2, generator=generator) + 0.5
        translated = shapes[:, right]  # [7, H, G, D]
        self.acts = (strength[:, :, None, None] * translated[chosen, moved]).sum(1)
        self.acts += 0.05 * torch.randn(n, G, D, generator=generator)
        self.acts = 3 * self.acts + 2
        self.image_ids = torch.arange(n) // 8
        self.image_names = [f"photo-{i}.png" for i in range(n // 8)]

    def __len__(self) -> int:
        return len(self.acts)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.acts[indices]


def digest(value: Any) -> str:
    """A hash of a tensor's dtype, shape and bits, or of what JSON makes of anything else."""
    if isinstance(value, torch.Tensor):
        tensor = value.detach().cpu().contiguous()
        text = f"{tensor.dtype}{tuple(tensor.shape)}".encode() + tensor.flatten().view(torch.uint8).numpy().tobytes()
    else:
        text = json.dumps(value, sort_keys=True, default=str).encode()
    return hashlib.sha256(text).hexdigest()[:16]


def latent_major(name: str, tensor: torch.Tensor, n_latents: int) -> torch.Tensor:
    """W_enc as [L, G or 1, D], whichever way this version stores it: [G, D, L] before file format 2."""
    stored_latents_last = name == "W_enc" and tensor.shape[-1] == n_latents
    return tensor.permute(2, 0, 1) if stored_latents_last else tensor


def training(form: str, sparsity: str, encoder: str, settings: str) -> dict[str, str]:
    """Hashes of one crosscoder's weights, figures, latents and atlas after 50 steps."""
    # No size equals another, so that `latent_major` can tell the axes apart.
    config = {"group": GROUP, "d_in": D, "encoder": encoder, "dead_after": 100, **FORMS[form], **SPARSITIES[sparsity]}
    crosscoder = groupcc.GroupCrosscoder(groupcc.CrosscoderConfig(**config), seed=3)
    orbits: Any = Planted()
    options = {"steps": STEPS, "batch_size": 64, "progress": False, "held_out": 0.2, "lr": 3e-3, **TRAINING[settings]}
    with tempfile.TemporaryDirectory() as folder:
        result = groupcc.train(crosscoder, orbits, groupcc.TrainConfig(out=folder, log_every=10, **options))
        lines = [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        for line in lines:
            line.pop("seconds", None)
        again = groupcc.GroupCrosscoder.from_pretrained(Path(folder) / "crosscoder")
    hashes = {"metrics": digest(result.metrics), "log": digest(lines)}
    L = crosscoder.config.n_latents
    for name, tensor in crosscoder.state_dict().items():
        hashes[f"weights.{name}"] = digest(latent_major(name, tensor, L))
        same = torch.equal(tensor, again.state_dict()[name])
        hashes[f"reloaded.{name}"] = str(same)
    with torch.no_grad():
        latents = crosscoder.encode(orbits.acts[:100])
        poses = [] if latents.poses is None else [latents.poses]
        for name, tensor in zip(("acts", "indices", "poses"), [latents.acts, latents.indices, *poses], strict=False):
            hashes[f"encode.{name}"] = digest(tensor)
        hashes["pre_acts"] = digest(crosscoder.pre_acts(orbits.acts[:50]))
        hashes["decode"] = digest(crosscoder.decode(latents))
        out = crosscoder(orbits.acts[:100])
        hashes["losses"] = digest({name: float(value) for name, value in out.losses.items()})
        if crosscoder.config.tied:
            loose = crosscoder.untie()
            for name, tensor in loose.state_dict().items():
                hashes[f"untied.{name}"] = digest(latent_major(name, tensor, loose.config.n_latents))
    atlas = groupcc.analyze(crosscoder, orbits, scaling=True)
    hashes["table"] = digest(atlas.table())
    for name in ATLAS_TENSORS:
        value = getattr(atlas, name)
        if value is not None:
            hashes[f"atlas.{name}"] = digest(value)
    return hashes


def maps(form: str, sparsity: str, encoder: str) -> dict[str, str]:
    """Hashes of the latents of feature maps."""
    config = {"group": GROUP, "d_in": D, "encoder": encoder, **FORMS[form], **SPARSITIES[sparsity]}
    crosscoder = groupcc.GroupCrosscoder(groupcc.CrosscoderConfig(**config), seed=3).eval()
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(2, G, 9, 9, D, generator=generator)
    points = 2 + 4 * torch.rand(G, 3, 2, generator=generator, dtype=torch.float64)
    latents = crosscoder.encode_maps(values, points)
    return {"acts": digest(latents.acts), "indices": digest(latents.indices)}


def harvest(orbit: str, positions: str) -> dict[str, str]:
    """Hashes of what the bundled net gives for two photographs."""
    from groupcc.zoo import photographs

    images = photographs("held_out")[:2]
    store = groupcc.harvest(
        "bundled", "mixed3b", images, group="D4", orbit=orbit, positions=positions, progress=False, dtype="float32"
    )
    return {"acts": digest(store.take(torch.arange(len(store)))), "image_ids": digest(store.image_ids)}


def pictures() -> dict[str, str]:
    """Hashes of a causal check and of a feature visualisation on the bundled net."""
    from groupcc.zoo import photographs

    images = photographs("held_out")[:3]
    orbits = groupcc.harvest("bundled", "mixed3b", images, group="D4", positions="random:60", progress=False)
    config = groupcc.CrosscoderConfig(group="D4", d_in=orbits.d_in, n_latents=8, k=4, encoder="orbit", tied=True)
    settings = groupcc.TrainConfig(steps=30, batch_size=64, progress=False)
    crosscoder = groupcc.train(groupcc.GroupCrosscoder(config), orbits, settings).crosscoder
    atlas = groupcc.analyze(crosscoder, orbits)
    options: dict[str, Any] = {"n_families": 1, "max_images": 2, "progress": False}
    effect = groupcc.causal_check("bundled", "mixed3b", crosscoder, images, atlas, **options)
    shown = groupcc.visualize("bundled", crosscoder, orbits, [0, 1], rounds=4)
    return {"causal": digest(effect.text()), "visualize": digest(shown.images), "table": digest(atlas.table())}


def cases() -> Iterator[tuple[str, Callable[[], dict[str, str]]]]:
    """(name, what makes its hashes)."""
    for form, sparsity, encoder, settings in itertools.product(FORMS, SPARSITIES, ("identity", "orbit"), TRAINING):
        if sparsity == "l1-concat" and settings == "rich":
            continue
        name = f"train/{form}/{sparsity}/{encoder}/{settings}"
        yield name, lambda args=(form, sparsity, encoder, settings): training(*args)
    for form, sparsity, encoder in itertools.product(FORMS, ("topk", "batchtopk", "l1"), ("identity", "orbit")):
        yield f"maps/{form}/{sparsity}/{encoder}", lambda args=(form, sparsity, encoder): maps(*args)
    for orbit, positions in (("input", "all"), ("input", "random:5"), ("input", "centre"), ("map", "all")):
        yield f"harvest/{orbit}/{positions}", lambda args=(orbit, positions): harvest(*args)
    yield "pictures", pictures


def snapshots(backend: str, only: str = "") -> dict[str, dict[str, str]]:
    """The hashes of every case whose name contains `only`, on a backend and with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with groupcc.use_backend(backend), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return {name: make() for name, make in cases() if only in name}
    finally:
        torch.set_num_threads(threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--backend", nargs="+", default=["reference", "cpp"])
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    hashes = {backend: snapshots(backend, args.only) for backend in args.backend}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(hashes, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
