"""train: Adam on a crosscoder's loss, resumable to the bit."""

from __future__ import annotations

import time
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import groupcc
from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import fingerprint, split_by_image
from groupcc.devices import move
from groupcc.errors import ArgumentError, DataError, GroupccWarning, argument_error
from groupcc.files import canonical_hash, directory_lock
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder, residual
from groupcc.training import checkpoint as checkpoints
from groupcc.training.config import TrainConfig
from groupcc.training.data import (
    batch_indices,
    describe_examples,
    scaled,
    translate_at_random,
)
from groupcc.training.evaluation import evaluate
from groupcc.training.initialise import initialise_biases, initialise_decoder, measure
from groupcc.training.memory_order import in_memory_order
from groupcc.training.metrics import MetricsLog
from groupcc.training.resample import CANDIDATES, POOL, resample_dead_

__all__ = ["TrainResult", "train"]

BLOCK_BYTES = 2 << 20


@dataclass(frozen=True)
class TrainResult:
    """`crosscoder` (the one passed in, trained, in eval mode), final `metrics` on held-out images (on the training
    examples where none are held out), `directory` (TrainConfig.out), and `resumed_from`, a step or None."""

    crosscoder: GroupCrosscoder
    metrics: dict[str, Any]
    directory: Path | None
    resumed_from: int | None


def train(crosscoder: GroupCrosscoder, orbits: object, config: TrainConfig | None = None) -> TrainResult:
    """Trains `crosscoder` in place on `orbits`: a store, or a tensor [M, G, D].

    Minimises the crosscoder's total loss (see `GroupCrosscoder.forward`) on activations times a power of two that
    brings their mean square about the mean near 1; the scale is folded into the weights at the end, so that the
    result takes activations as they are. With decoder norm "unit", the gradient's part along each decoder is
    removed and the norm restored after each step. Dead latents start anew where `config.resample_every` says so
    (`groupcc.training.resample`). A crosscoder tied in part takes its penalty's step after Adam's
    (`groupcc.models.residual`).

    With `config.out` set, checkpoints go to `out/checkpoints`, metrics to `out/metrics.jsonl`, the result to
    `out/crosscoder`. Called again with the same settings and data it goes on from the newest checkpoint that
    verifies, and ends with the same bits as a run that was never interrupted (same machine, thread count and
    library versions, on the CPU). ArgumentError where the directory holds a run with other settings, naming the
    first that differs; a warning where that run started from other weights. DataError where a batch makes loss or
    gradient NaN or infinite, naming the step and its examples; the crosscoder then has the weights of the step before.
    """
    config = config or TrainConfig()
    _is_a("crosscoder", crosscoder, GroupCrosscoder)
    _is_a("config", config, TrainConfig)
    move(crosscoder, config.device)
    source = as_orbits(orbits, crosscoder.group.order, crosscoder.config.d_in)
    train_indices, held_out_indices = split_by_image(source, config.held_out, config.seed)
    settings = {
        "crosscoder": crosscoder.config.to_dict(),
        "train": config.resumable_settings(),
        "data": fingerprint(source),
        "start": crosscoder.fingerprint(),
    }
    directory = Path(config.out) if config.out is not None else None
    with directory_lock(directory, "training into it") if directory else nullcontext():
        return _train(crosscoder, source, train_indices, held_out_indices, settings, config, directory)


def _train(
    crosscoder: GroupCrosscoder,
    source: Orbits,
    train_indices: torch.Tensor,
    held_out_indices: torch.Tensor,
    settings: dict[str, Any],
    config: TrainConfig,
    directory: Path | None,
) -> TrainResult:
    # Spread over all held-out images: the first examples alone would be of the first few.
    watched_indices = held_out_indices[:: max(1, -(-len(held_out_indices) // config.eval_examples))]
    found = checkpoints.newest(directory / "checkpoints") if directory else None
    if found is not None:
        _same_settings(found.state["settings"], settings, found.path)
    # A resumed run has its b_dec: only the variance, for the figures, is still needed.
    centre = config.init_b_dec if found is None else "zero"
    statistics = measure(source, train_indices, centre, config.normalise, config.seed)
    scale = statistics.scale
    in_order = [
        in_memory_order(parameter.detach(), parameter).requires_grad_() for parameter in crosscoder.parameters()
    ]
    optimizer = torch.optim.Adam(in_order, lr=0.0, betas=config.betas, eps=1e-12, fused=True)
    start = 0
    if found is not None:
        start, scale = found.state["step"], found.state["scale"]
        _note_other_start(found, crosscoder, settings["start"])
        checkpoints.restore(found, crosscoder, optimizer)
        crosscoder.fold_scale_(1 / scale)
    else:
        if config.init_W_dec == "examples":
            initialise_decoder(crosscoder, source, train_indices, statistics, config.augment, config.seed)
        crosscoder.normalise_decoder_()
        initialise_biases(crosscoder, statistics)
    loop = _Loop(crosscoder, optimizer, source, train_indices, config, scale, statistics.variance)
    crosscoder.train()
    try:
        with MetricsLog(
            directory, start_step=start, steps=config.steps, progress=config.progress, tensorboard=config.tensorboard
        ) as log:
            for step in range(start, config.steps):
                loop.step(step, log)
                done = step + 1
                evaluating = config.eval_every and done % config.eval_every == 0 and done < config.steps
                if evaluating and len(held_out_indices):
                    with loop.folded():
                        metrics = evaluate(crosscoder, source, indices=watched_indices)
                    log.write({"step": done, **{f"held_out/{k}": v for k, v in metrics.items()}})
                if directory and (done % config.checkpoint_every == 0 or done == config.steps):
                    with loop.folded():
                        state = {
                            "step": done,
                            "scale": scale,
                            "settings": settings,
                            "config_hash": canonical_hash(settings),
                            "data_cursor": {"seed": config.seed, "next_example": done * config.batch_size},
                        }
                        checkpoints.write(directory / "checkpoints", crosscoder, optimizer, state, config.keep)
    finally:
        crosscoder.fold_scale_(scale)
        crosscoder.eval()
    evaluated = held_out_indices if len(held_out_indices) else train_indices
    metrics = evaluate(crosscoder, source, indices=evaluated, progress=config.progress)
    crosscoder.provenance |= {
        "groupcc": groupcc.__version__,
        "torch": torch.__version__,
        "settings": settings,
        "metrics": metrics,
    }
    if directory:
        crosscoder.save_pretrained(directory / "crosscoder")
    return TrainResult(crosscoder, metrics, directory, start if found is not None else None)


def _is_a(name: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        made = f"groupcc.{kind.__name__}(…) makes one."
        raise argument_error(name, expected=f"a {kind.__name__}", got=type(value).__name__, remedy=made)


class _Loop:
    """One optimizer step, and folding the scale in and out around evaluation and checkpoints."""

    def __init__(
        self,
        crosscoder: GroupCrosscoder,
        optimizer: torch.optim.Optimizer,
        orbits: Orbits,
        indices: torch.Tensor,
        config: TrainConfig,
        scale: float,
        variance: float,
    ) -> None:
        self.crosscoder, self.optimizer, self.orbits, self.indices = crosscoder, optimizer, orbits, indices
        self.config, self.scale = config, scale
        self.variance = max(variance * scale**2, torch.finfo(torch.float32).tiny)
        self.device = crosscoder.W_dec.device
        self.right_translation = translation_table(crosscoder.group)
        bf16 = config.precision == "bf16" or (config.precision == "auto" and self.device.type == "cuda")
        self.autocast: AbstractContextManager[object] = (
            torch.autocast(self.device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
        )
        self.started = time.monotonic()

    def step(self, step: int, log: MetricsLog) -> None:
        config, crosscoder = self.config, self.crosscoder
        chosen = batch_indices(self.indices, config.batch_size, config.seed, step)
        # Ascending reads are kinder to a store on disk; the order inside a batch means nothing.
        chosen = chosen.sort().values
        acts = self._take(chosen, step)
        lr = config.learning_rate(step, crosscoder.config.n_latents)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = lr
        buffers = {name: buffer.clone() for name, buffer in crosscoder.named_buffers()}
        try:
            with self.autocast:
                out = crosscoder(acts)
        except ArgumentError as error:
            unusable = (~acts.flatten(1).isfinite().all(1)).cpu()
            raise self._bad_batch(step, chosen[unusable], "unusable activations (NaN or infinity)") from error
        loss = out.losses["total"]
        crosscoder.zero_grad()
        self.optimizer.zero_grad()
        loss.backward()
        if crosscoder.config.tied == "residual":
            residual.prepare_gradients_(crosscoder)
        else:
            self._project_decoder_gradient()
        norm = torch.nn.utils.get_total_norm([p.grad for p in crosscoder.parameters() if p.grad is not None])
        if not bool((loss + norm).isfinite()):
            for name, buffer in crosscoder.named_buffers():
                buffer.copy_(buffers[name])
            raise self._bad_batch(step, chosen, f"loss {float(loss.detach()):g}, gradient norm {float(norm):g}")
        if config.grad_clip and norm > config.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(crosscoder.parameters(), config.grad_clip, norm)
        for parameter, held in zip(crosscoder.parameters(), self.optimizer.param_groups[0]["params"], strict=True):
            held.grad = None if parameter.grad is None else in_memory_order(parameter.grad, parameter)
        with residual.penalised_step(crosscoder, lr) if crosscoder.config.tied == "residual" else nullcontext():
            self.optimizer.step()
        crosscoder.normalise_decoder_()
        log.bar.update()
        done = step + 1
        if config.resamples_after(done):
            self._resample(done)
        if done % config.log_every == 0 or done == config.steps:
            record = {
                "step": done,
                **{name: float(value.detach()) for name, value in out.losses.items()},
                "fvu": float(out.losses["reconstruction"].detach()) / self.variance,
                "l0": float(out.latents.l0.float().mean()),
                "dead_fraction": float((crosscoder.since_fired >= crosscoder.config.dead_after).float().mean()),
                "grad_norm": float(norm),
                "lr": lr,
                "seconds": round(time.monotonic() - self.started, 3),
            }
            log.write(record)
            log.show(fvu=record["fvu"], l0=record["l0"], dead_fraction=record["dead_fraction"])

    def _take(self, chosen: torch.Tensor, step: int) -> torch.Tensor:
        """These examples as training sees them in this step."""
        # Orbits that vary from step to step, or are as quickly read scaled, have a say of their own.
        take_at_step = getattr(self.orbits, "take_at_step", None)
        take_scaled = getattr(self.orbits, "take_scaled", None)
        if take_at_step is None and take_scaled is not None:
            acts = take_scaled(chosen, self.scale).to(self.device)
        else:
            taken = self.orbits.take(chosen) if take_at_step is None else take_at_step(chosen, step)
            acts = scaled(taken.to(self.device), self.scale)
        if self.config.augment:
            acts = translate_at_random(acts, self.right_translation, self.config.seed, step)
        return acts

    @torch.no_grad()
    def _resample(self, step: int) -> None:
        """Dead latents start anew from the largest residuals of examples that (seed, step) fix."""
        crosscoder, config = self.crosscoder, self.config
        dead = (crosscoder.since_fired >= crosscoder.config.dead_after).nonzero().flatten()
        if not len(dead):
            return
        generator = torch.Generator().manual_seed((config.seed * 1_000_003 + step) % 2**63)
        order = torch.randperm(len(self.indices), generator=generator)
        largest = torch.zeros(0, crosscoder.group.order, crosscoder.config.d_in, device=self.device)
        for chosen in self.indices[order[: POOL * config.batch_size]].sort().values.split(config.batch_size):
            acts = self._take(chosen, step)
            with self.autocast:
                left = acts - crosscoder.decode(crosscoder.encode(acts)).float()
            left = torch.cat([largest, left])
            largest = left[left.flatten(1).square().sum(1).topk(min(CANDIDATES, len(left))).indices]
        resample_dead_(crosscoder, self.optimizer, dead, largest)

    @torch.no_grad()
    def _project_decoder_gradient(self) -> None:
        W, gradient = self.crosscoder.W_dec, self.crosscoder.W_dec.grad
        if self.crosscoder.config.decoder_norm == "unit" and gradient is not None:
            # On a CPU a few latents at a time: a product of the dictionary's size would go through fresh memory,
            # whose page faults cost several times the arithmetic.
            latents = len(W) if W.is_cuda else max(1, BLOCK_BYTES // (W[0].numel() * W.element_size()))
            for W_block, block in zip(W.split(latents), gradient.split(latents), strict=True):
                along = (block * W_block).sum((1, 2), keepdim=True)
                block.addcmul_(along, W_block, value=-1)

    def _bad_batch(self, step: int, chosen: torch.Tensor, what: str) -> DataError:
        epoch = step * self.config.batch_size // len(self.indices)
        return DataError(
            f"training stopped at step {step} (epoch {epoch}): {what} from {describe_examples(self.orbits, chosen)}. "
            "The crosscoder has the weights of the step before. Lower lr or grad_clip, or look at these examples."
        )

    def folded(self) -> AbstractContextManager[None]:
        return _Folded(self.crosscoder, self.scale)


class _Folded(AbstractContextManager[None]):
    def __init__(self, crosscoder: GroupCrosscoder, scale: float) -> None:
        self.crosscoder, self.scale = crosscoder, scale

    def __enter__(self) -> None:
        self.crosscoder.fold_scale_(self.scale)

    def __exit__(self, *_: object) -> None:
        self.crosscoder.fold_scale_(1 / self.scale)


def _note_other_start(found: checkpoints.Checkpoint, crosscoder: GroupCrosscoder, start: str) -> None:
    """Warns where what is resumed did not start as the crosscoder at hand, which isn't the run's own result either."""
    if start not in (found.state["settings"]["start"], found.crosscoder.fingerprint()):
        warnings.warn(
            f"out: the run at {found.path} started from other weights than the crosscoder given; it goes on from step "
            f"{found.state['step']}, and these weights are replaced. To train them, choose another directory.",
            GroupccWarning,
            stacklevel=4,
        )


def _same_settings(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    remedy = "Use these settings again, or another out directory."
    for part in ("crosscoder", "train"):
        for name, value in wanted[part].items():
            if saved[part].get(name) != value:
                raise argument_error(
                    name, expected=f"{saved[part].get(name)!r}, as in the run at {path}", got=value, remedy=remedy
                )
    if saved["data"] != wanted["data"]:
        raise argument_error(
            "orbits",
            expected=f"the data of the run at {path}",
            got="other data",
            remedy="Train on the same orbits, or to another out directory.",
        )
