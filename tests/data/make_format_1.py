"""Wrote tests/data/format_1 with commit 39c3277, the last one that wrote file format 1 of crosscoders.

    git checkout 39c3277 && python tests/data/make_format_1.py tests/data/format_1

`expected.safetensors` beside each crosscoder holds what that version computed from it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import groupcc

GROUP, G, D = "D3", 6, 5
KINDS: dict[str, dict[str, Any]] = {
    "untied_orbit_topk": {"n_latents": 14, "encoder": "orbit"},
    "untied_identity_batchtopk": {"n_latents": 14, "encoder": "identity", "sparsity": "batchtopk"},
    "untied_orbit_l1": {"n_latents": 14, "encoder": "orbit", "sparsity": "l1", "l1_coefficient": 0.01},
    "tied_orbit_nms": {"n_latents": 4, "encoder": "orbit", "tied": True, "pose": "nms"},
    "tied_identity_topk": {"n_latents": 4, "encoder": "identity", "tied": True},
    "residual_orbit_topk": {"n_latents": 4, "encoder": "orbit", "tied": "residual"},
}


def orbits() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(9, G * D, generator=generator)
    acts = torch.zeros(120, 9).scatter_(1, torch.rand(120, 9, generator=generator).topk(2, 1).indices, 1.0)
    return 4 * (acts @ atoms).view(120, G, D) + 1


def main() -> None:
    root = Path(sys.argv[1])
    shutil.rmtree(root, ignore_errors=True)
    acts = orbits()
    settings: dict[str, Any] = {"batch_size": 20, "progress": False, "checkpoint_every": 15, "keep": 1, "lr": 3e-3}
    for name, options in KINDS.items():
        config = groupcc.CrosscoderConfig(group=GROUP, d_in=D, **{"k": 2, "dead_after": 60, **options})
        run = root / name
        # 30 steps, of which the checkpoint at 15 is kept: a newer version must go on from it.
        stopped = groupcc.TrainConfig(steps=30, out=run / "stopped", **settings)
        crosscoder = groupcc.train(groupcc.GroupCrosscoder(config, seed=1), acts, stopped).crosscoder
        shutil.copytree(run / "stopped" / "crosscoder", run / "crosscoder")
        with groupcc.use_backend("reference"):
            latents = crosscoder.encode(acts[:8])
            expected = {"latent_acts": latents.acts, "latent_indices": latents.indices}
            expected |= {"pre_acts": crosscoder.pre_acts(acts[:8])}
            expected |= {"decoded": crosscoder.decode(latents), "W_dec": crosscoder.W_dec, "W_enc": crosscoder.W_enc}
            expected |= {"b_enc": crosscoder.b_enc, "b_dec": crosscoder.b_dec}
            if latents.poses is not None:
                expected["poses"] = latents.poses
        save_file({key: value.detach().contiguous() for key, value in expected.items()}, run / "expected.safetensors")
        (run / "fingerprint.txt").write_text(crosscoder.fingerprint())
        shutil.rmtree(run / "stopped")
        _stop(groupcc.GroupCrosscoder(config, seed=1), acts, stopped)
        if name in ("untied_orbit_topk", "tied_orbit_nms"):
            atlas = groupcc.analyze(crosscoder, acts, scaling=True)
            atlas.save(run / "atlas")
            atlas.write_table(run / "table.json")
    _store(root / "store")


def _store(folder: Path) -> None:
    """Orbits of two pictures of noise, and what `take` gives of them."""
    images = torch.rand(2, 3, 110, 110, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"group": "D4", "positions": "random:2", "input_size": 80, "progress": False}
    store = groupcc.harvest("bundled", "mixed3b", images, out=folder / "orbits", **options)
    save_file({"acts": store.take(torch.arange(len(store)))}, folder / "expected.safetensors")


class _Stop(Exception):  # noqa: N818
    pass


def _stop(crosscoder: groupcc.GroupCrosscoder, acts: torch.Tensor, config: groupcc.TrainConfig) -> None:
    """Trains until after the checkpoint of step 15, and stops as Ctrl-C does."""
    steps = 0
    forward = crosscoder.forward

    def counted(batch: torch.Tensor) -> Any:
        nonlocal steps
        steps += crosscoder.training
        if steps == 18:
            raise _Stop
        return forward(batch)

    crosscoder.forward = counted  # type: ignore[method-assign]
    try:
        groupcc.train(crosscoder, acts, config)
    except _Stop:
        return
    raise RuntimeError("it was not stopped")


if __name__ == "__main__":
    main()
