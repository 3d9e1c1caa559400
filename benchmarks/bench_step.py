"""A whole training step of an untied crosscoder, beside the same step of other libraries on the same flattened orbits.

    python benchmarks/bench_step.py                                        # L = 8192, G = 16, D = 128, k = 32, N = 512
    python benchmarks/bench_step.py --steps 300 --out runs/step            # loss curves too
    python benchmarks/bench_step.py --device cuda --latents 65536          # bf16, beside a compiled dense step

Every side is at its own training step, all take turns in one run, and each sees the same batches of planted orbits:

- groupcc, `topk` and `batchtopk`: `groupcc.train` itself, stopped at the start of each step, on the backends named.
- overcomplete: `train_sae` of a `TopKSAE` with one batch, MSE, Adam, its gradient clipping, without monitoring. Its
  encoder is linear and batch-normalised.
- dictionary-learning: `BatchTopKTrainer.update`, from the same weights as groupcc's; its Adam, projection and clipping.
- plain PyTorch: dense product, torch.topk, dense decode, Adam (fused; compiled on CUDA).

Learning rate, clipping, data and the dtype of products are the same for all: float32, and on CUDA bfloat16 by autocast.
FVU is the loss over the variance of the data.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

import groupcc
from groupcc.bench import output
from groupcc.bench.peers import NotInstalled, require
from groupcc.bench.timing import measure_rates, synchronize, warm_allocator
from groupcc.data.orbits import TensorOrbits
from groupcc.training.data import batch_indices
from groupcc.zoo.planted import planted

Step = Callable[[int], float | None]
"""Does step i; returns its FVU where the side tells it at once."""


class Halting(TensorOrbits):
    """A tensor as `groupcc.train` takes it, on which it stops at the start of every step until it is told to go on."""

    def __init__(self, acts: torch.Tensor) -> None:
        super().__init__(acts)
        self.go, self.arrived = threading.Semaphore(0), threading.Semaphore(0)

    def take_scaled(self, indices: torch.Tensor, factor: float) -> torch.Tensor:
        self.arrived.release()
        self.go.acquire()
        return super().take_scaled(indices, factor)


class OurSide:
    """groupcc.train in a thread of its own, a step at a time."""

    def __init__(
        self, args: argparse.Namespace, acts: torch.Tensor, backend: str, trained: groupcc.GroupCrosscoder
    ) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.orbits, self.error = Halting(acts), None
        self.thread = threading.Thread(target=self._train, args=(args, backend, trained), daemon=True)
        self.thread.start()
        self._wait()

    def _train(self, args: argparse.Namespace, backend: str, trained: groupcc.GroupCrosscoder) -> None:
        torch.set_num_threads(args.threads)  # OpenMP keeps it for each thread
        settings = groupcc.TrainConfig(
        augment=False, resample_every=0,
            steps=args.steps + 1, batch_size=args.batch, lr=args.lr, warmup_steps=0, decay_fraction=0, held_out=0.0,
            init_b_dec="mean", log_every=1, checkpoint_every=args.steps + 1, progress=False, out=self.folder.name,
            device=args.device, precision="bf16" if products(args) == torch.bfloat16 else "fp32",
        )  # fmt: skip
        try:
            with groupcc.use_backend(backend):
                groupcc.train(trained, self.orbits, settings)
        except BaseException as error:
            self.error = error
            self.orbits.arrived.release()

    def _wait(self) -> None:
        self.orbits.arrived.acquire()
        if self.error is not None:
            raise self.error

    def step(self, _: int) -> None:
        self.orbits.go.release()
        self._wait()

    def curve(self) -> list[float]:
        lines = (Path(self.folder.name) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["fvu"] for line in lines]


def crosscoder(args: argparse.Namespace, sparsity: str) -> groupcc.GroupCrosscoder:
    config = groupcc.CrosscoderConfig(
        group=args.group, d_in=args.width, n_latents=args.latents, k=args.k, encoder="orbit", sparsity=sparsity
    )
    return groupcc.GroupCrosscoder(config, seed=0)


def products(args: argparse.Namespace) -> torch.dtype:
    """The dtype that every side multiplies in; weights are float32."""
    return torch.bfloat16 if args.device == "cuda" else torch.float32


def autocast(args: argparse.Namespace) -> torch.autocast:
    return torch.autocast(args.device, torch.bfloat16, enabled=products(args) == torch.bfloat16)


def overcomplete_step(args: argparse.Namespace, batch: Callable[[int], torch.Tensor], variance: float) -> Step:
    with contextlib.suppress(ImportError, AttributeError):  # its plots use a function that matplotlib 3.9 moved
        import matplotlib

        matplotlib.cm.get_cmap = matplotlib.colormaps.get_cmap
    sae = require("overcomplete", "sae")
    torch.manual_seed(0)
    model = sae.TopKSAE(batch(0).shape[1], args.latents, top_k=args.k, device=args.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    losses: list[torch.Tensor] = []

    def criterion(x: torch.Tensor, x_hat: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        loss = (x - x_hat).square().mean()
        losses.append(loss.detach())
        return loss

    def step(i: int) -> float:
        with contextlib.redirect_stdout(io.StringIO()), autocast(args):
            sae.train_sae(model, [batch(i)], criterion, optimizer, nb_epochs=1, monitoring=0, device=args.device)
        return float(losses.pop()) / variance

    return step


def dictionary_learning_step(args: argparse.Namespace, batch: Callable[[int], torch.Tensor], variance: float) -> Step:
    trainers = require("dictionary_learning", "trainers.batch_top_k")
    M = batch(0).shape[1]
    trainer = trainers.BatchTopKTrainer(
        steps=10**9, activation_dim=M, dict_size=args.latents, k=args.k, layer=0, lm_name="", lr=args.lr,
        warmup_steps=0, device=args.device,
    )  # fmt: skip
    ours = crosscoder(args, "batchtopk").to(args.device)
    with torch.no_grad():
        trainer.ae.decoder.weight.copy_(ours.W_dec.flatten(1).t())
        trainer.ae.encoder.weight.copy_(ours.W_enc.flatten(1))
        trainer.ae.b_dec.copy_(batch(-1).mean(0))

    def step(i: int) -> float:
        with autocast(args):
            # Its step 0 would first seek the geometric median of the batch.
            return float(trainer.update(i + 1, batch(i))) / (M * variance)

    return step


def plain_step(args: argparse.Namespace, batch: Callable[[int], torch.Tensor], variance: float) -> Step:
    ours = crosscoder(args, "topk").to(args.device)
    W_enc, W_dec = ours.W_enc.detach().flatten(1).t().contiguous(), ours.W_dec.detach().flatten(1).clone()
    b_enc, b_dec = ours.b_enc.detach().clone(), batch(-1).mean(0)
    parameters = [tensor.requires_grad_() for tensor in (W_enc, b_enc, W_dec, b_dec)]
    optimizer = torch.optim.Adam(parameters, lr=args.lr, fused=True)

    def loss_of(x: torch.Tensor) -> torch.Tensor:
        with autocast(args):
            acts, indices = torch.addmm(b_enc, x - b_dec, W_enc).topk(args.k, dim=1)
            dense = torch.zeros(len(x), W_dec.shape[0], dtype=acts.dtype, device=x.device)
            x_hat = dense.scatter(1, indices, acts.relu()) @ W_dec + b_dec
        return (x - x_hat).square().mean()

    loss_of_batch = torch.compile(loss_of) if args.device == "cuda" else loss_of

    def step(i: int) -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of_batch(batch(i))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return float(loss.detach()) / variance

    return step


PEERS = {
    "overcomplete TopKSAE": overcomplete_step,
    "dictionary-learning BatchTopKSAE": dictionary_learning_step,
    "plain PyTorch, dense": plain_step,
}

AGAINST = {"groupcc batchtopk": "groupcc batchtopk, auto", "dictionary-learning": "groupcc batchtopk, auto"}
"""By the start of a side's name, which of ours chooses its latents as it does; `topk` for all others."""


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=12, help="the first two warm up and are not timed")
    parser.add_argument("--group", default="D8", help="|G| is the number of blocks")
    parser.add_argument("--width", type=int, default=128, help="D")
    parser.add_argument("--latents", type=int, default=8192)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--examples", type=int, default=8192)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", nargs="+", default=["topk", "batchtopk", *PEERS], help="which take part")
    parser.add_argument("--memory", choices=["warm", "system"], default="system", help="see benchmarks/README.md")
    parser.add_argument("--out", type=Path, default=None, help="directory for step.csv, step.md and step.svg")
    return parser.parse_args(argv)


def data(args: argparse.Namespace) -> torch.Tensor:
    """Planted orbits [M, G, D] of unit mean square, with a little noise."""
    truth = planted(args.group, args.width, 64, seed=0)
    acts, _ = truth.sample(args.examples, n_active=16, noise=0.1, seed=1)
    return (acts / acts.square().mean().sqrt()).to(args.device)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    acts = data(args)
    flat = acts.flatten(1)
    variance = float((flat - flat.mean(0)).square().mean())
    everything = torch.arange(args.examples)

    def batch(i: int) -> torch.Tensor:
        """The examples that groupcc.train takes at step i; -1: all."""
        return flat if i < 0 else flat[batch_indices(everything, args.batch, 0, i).sort().values]

    with warm_allocator() if args.memory == "warm" else contextlib.nullcontext(False) as warmed:
        about = output.machine(
            device, measure_rates([products(args)], device), warmed=warmed, repeats=max(args.steps - 2, 1)
        )
        ours: dict[str, OurSide] = {}
        sides: dict[str, Step] = {}
        for sparsity in ("topk", "batchtopk"):
            for backend in ("auto", "reference") if sparsity in args.sides else ():
                name = f"groupcc {sparsity}, {backend}"
                ours[name] = OurSide(args, acts, backend, crosscoder(args, sparsity))
                sides[name] = ours[name].step
        for name, make in PEERS.items():
            if name in args.sides:
                try:
                    sides[name] = make(args, batch, variance)
                except NotInstalled as error:
                    about.append(f"left out: {error}")
        times: dict[str, list[float]] = {name: [] for name in sides}
        curves: dict[str, list[float]] = {name: [] for name in sides}
        for i in range(args.steps):
            for name, step in sides.items():
                time.sleep(0.003)
                synchronize(device)
                start = time.perf_counter()
                fvu = step(i)
                synchronize(device)
                times[name].append(1e3 * (time.perf_counter() - start))
                curves[name].append(fvu if fvu is not None else float("nan"))
    for name, side in ours.items():
        curves[name] = side.curve()[: args.steps]
    report(args, about, times, curves)


def report(
    args: argparse.Namespace, about: list[str], times: dict[str, list[float]], curves: dict[str, list[float]]
) -> None:
    medians = {name: statistics.median(values[2:] or values) for name, values in times.items()}
    G = groupcc.group(args.group).order
    shape = f"L = {args.latents}, G = {G}, D = {args.width}, k = {args.k}, N = {args.batch}"
    shape += f", products in {str(products(args))[6:]}, weights in float32"
    lines = [
        *about,
        shape,
        "",
        "| training step | ms | against | which is so many times as fast | FVU at the end |",
        "|---|---|---|---|---|",
    ]
    for name, ms in medians.items():
        against = next((ours for start, ours in AGAINST.items() if name.startswith(start)), "groupcc topk, auto")
        ratio = f"{against} | {ms / medians[against]:.2f}" if against in medians else " | "
        lines.append(f"| {name} | {ms:.1f} | {ratio} | {curves[name][-1]:.4f} |")
    for sparsity in ("topk", "batchtopk"):
        pair = [curves.get(f"groupcc {sparsity}, {backend}") for backend in ("auto", "reference")]
        if all(pair):
            apart = max(abs(a - b) / b for a, b in zip(*pair, strict=True))
            lines.append(f"\n{sparsity}: auto and reference differ by at most {apart:.1e} of the loss in any step")
    print("\n".join(lines))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "step.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        with open(args.out / "step.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("side", "step", "ms", "fvu"))
            for name in times:
                table.writerows((name, i, *pair) for i, pair in enumerate(zip(times[name], curves[name], strict=True)))
        (args.out / "step.svg").write_text(output.curves(curves, "step", "FVU"), encoding="utf-8")


if __name__ == "__main__":
    main()
