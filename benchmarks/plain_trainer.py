"""Our trainer against a plain one in sixty lines of PyTorch: FVU and unused latents at equal L0 and steps.

    python benchmarks/plain_trainer.py                     # the bundled net's mixed3b under D8, seeds 0 to 2
    python benchmarks/plain_trainer.py --offset 1000       # a constant of 1000 times the spread is added to the data

The plain trainer centres the activations on their mean, scales them to unit mean square, and trains
pre = W_enc·a + b_enc, the k largest, â = W_dec·f + b_dec with Adam at a constant rate, unit decoders and no more. It
sees the same orbits, held-out photographs, batches of the same size, learning rate and translates. Columns: held-out
FVU and the share of latents that no training example fires, of both.
"""

from __future__ import annotations

import argparse

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, harvest, train
from groupcc.data.splits import split_by_image
from groupcc.groups import group as make_group
from groupcc.groups.translate import translation_table
from groupcc.zoo import real_crops


def plain(
    acts: torch.Tensor, training: torch.Tensor, held_out: torch.Tensor, args: argparse.Namespace, seed: int
) -> tuple[float, float]:
    """Returns held-out FVU and the share of unused latents of the plain trainer."""
    generator = torch.Generator().manual_seed(seed)
    _, G, D = acts.shape
    table = translation_table(make_group(args.group))
    mean = acts[training].mean((0, 1))
    spread = (acts[training] - mean).square().mean().sqrt()
    x = (acts - mean) / spread
    W_dec = torch.nn.functional.normalize(torch.randn(args.latents, G * D, generator=generator), dim=1)
    W_enc, b_enc, b_dec = W_dec.clone(), torch.zeros(args.latents), torch.zeros(G * D)
    parameters = [tensor.requires_grad_() for tensor in (W_dec, W_enc, b_enc, b_dec)]
    optimizer = torch.optim.Adam(parameters, lr=args.lr)

    def reconstruct(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        pre, index = torch.addmm(b_enc, batch.flatten(1), W_enc.t()).topk(args.k, dim=1)
        codes = torch.zeros(len(batch), args.latents).scatter(1, index, pre.relu())
        return codes @ W_dec + b_dec, codes

    for _ in range(args.steps):
        chosen = training[torch.randint(len(training), (args.batch,), generator=generator)]
        poses = table[torch.randint(G, (args.batch,), generator=generator)]
        batch = x[chosen[:, None], poses]
        loss = (reconstruct(batch)[0] - batch.flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))
    with torch.no_grad():
        target = x[held_out].flatten(1)
        left = (reconstruct(x[held_out])[0] - target).square().sum()
        fired = torch.zeros(args.latents, dtype=torch.bool)
        for part in training.split(1024):
            fired |= (reconstruct(x[part])[1] > 0).any(0)
        return float(left / (target - target.mean(0)).square().sum()), float((~fired).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D8")
    parser.add_argument("--latents", type=int, default=256)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1.6e-3)
    parser.add_argument("--offset", type=float, default=0.0, help="times the spread of the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    store = harvest("bundled", "mixed3b", real_crops(60, 180), args.group, groups="parent", positions="random:60")
    training, held_out = split_by_image(store, 0.2, 0)
    acts = store.take(torch.arange(len(store)))
    acts += args.offset * acts.std()
    print(f"{'seed':>4}{'ours: FVU':>12}{'unused':>9}{'plain: FVU':>13}{'unused':>9}")
    for seed in args.seeds:
        config = CrosscoderConfig(group=args.group, d_in=acts.shape[2], n_latents=args.latents, k=args.k)
        settings = TrainConfig(
            steps=args.steps, batch_size=args.batch, lr=args.lr, held_out=0.0, seed=seed, progress=False
        )
        quality = train(
            GroupCrosscoder(config, seed=seed), acts[training], settings, held_out_orbits=acts[held_out]
        ).quality
        fvu, unused = plain(acts, training, held_out, args, seed)
        print(
            f"{seed:>4}{quality.held_out_fvu:>12.3f}{quality.dead_fraction:>9.1%}{fvu:>13.3f}{unused:>9.1%}", flush=True
        )


if __name__ == "__main__":
    main()
