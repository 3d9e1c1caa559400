"""train: Adam on a crosscoder's loss, resumable to the bit."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

import groupcc
from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import fingerprint, split_by_image
from groupcc.devices import move
from groupcc.errors import ArgumentError, DataError, GroupccWarning, argument_error, check_is
from groupcc.files import canonical_hash, directory_lock
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.models.quality import Quality, warn_of_doubts
from groupcc.training import checkpoint as checkpoints
from groupcc.training.config import TrainConfig
from groupcc.training.data import Batches, describe_examples
from groupcc.training.evaluation import evaluate
from groupcc.training.initialise import initialise_decoder, measure
from groupcc.training.metrics import MetricsLog
from groupcc.training.resample import largest_residuals, resample_dead_

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """`crosscoder` (the one passed in, trained, in eval mode), final `metrics` on held-out images (on the training
    examples where none are held out), `directory` (TrainConfig.out), `resumed_from`, a step or None, and `quality`:
    what says whether the dictionary can be read (`Quality.doubts`)."""

    crosscoder: GroupCrosscoder
    metrics: dict[str, Any]
    directory: Path | None
    resumed_from: int | None
    quality: Quality


def train(
    crosscoder: GroupCrosscoder,
    orbits: object,
    config: TrainConfig | None = None,
    *,
    held_out_orbits: object | None = None,
) -> TrainResult:
    """Trains `crosscoder` in place on `orbits`: a store, or a tensor [M, G, D].

    Metrics are those of the photographs that `config.held_out` keeps from training. With `held_out_orbits`, orbits of
    other photographs, they are those of all of these; training then sees all of `orbits`, as with `held_out=0`.

    Minimises the crosscoder's total loss (see `GroupCrosscoder.forward`) on (a − c)·s: c is the centre of the
    activations (`init_b_dec`), s a power of two that brings their mean square about the mean near 1. Scale and centre
    are folded into the biases at the end, so that the result takes activations as they are. A constant added to the
    activations changes nothing but the biases. With decoder norm "unit", the gradient's part along each decoder is
    removed and the norm restored after each step. Dead latents start anew where `config.resample_every` says so
    (`groupcc.training.resample`). A crosscoder tied in part takes its penalty's step after Adam's
    (`groupcc.models.forms.residual`).

    With `config.out` set, checkpoints go to `out/checkpoints`, metrics to `out/metrics.jsonl`, the result to
    `out/crosscoder`. Called again with the same settings and data it goes on from the newest checkpoint that
    verifies, and ends with the same bits as a run that was never interrupted (same machine, thread count and
    library versions, on the CPU). ArgumentError where the directory holds a run with other settings, naming the
    first that differs; a warning where that run started from other weights. DataError where a batch makes loss or
    gradient NaN or infinite, naming the step and its examples; the crosscoder then has the weights of the step before.

    A `QualityWarning`, with the remedy, says if the dictionary does not describe the layer: held-out FVU above 0.7 or
    far above that of training, three in ten latents dead, too few examples a latent, too few photographs
    (`groupcc.models.quality.Quality`).
    """
    config = config or TrainConfig()
    check_is("crosscoder", crosscoder, GroupCrosscoder)
    check_is("config", config, TrainConfig)
    if crosscoder.config.dead_after is None:
        crosscoder.config = replace(crosscoder.config, dead_after=config.dead_after())
    move(crosscoder, config.device)
    source = as_orbits(orbits, crosscoder.group.order, crosscoder.config.d_in)
    if held_out_orbits is not None:
        config = replace(config, held_out=0.0)
    data = _data(source, held_out_orbits, crosscoder, config)
    settings = {
        "crosscoder": crosscoder.config.to_dict(),
        "train": config.resumable_settings(),
        "data": fingerprint(source),
        "start": crosscoder.fingerprint(),
    }
    if data.unseen is not source:
        settings["held_out_data"] = fingerprint(data.unseen)
    directory = Path(config.out) if config.out is not None else None
    with directory_lock(directory, "training into it") if directory else nullcontext():
        loop = _Loop(crosscoder, data, settings, config)
        loop.run()
        return loop.finish()


class _Data(NamedTuple):
    """The orbits, which of their examples are trained on, and which of `unseen` are held out, int64 each.

    `unseen` is `source`, or orbits of other photographs.
    """

    source: Orbits
    training: torch.Tensor
    held_out: torch.Tensor
    unseen: Orbits


def _data(source: Orbits, held_out_orbits: object | None, crosscoder: GroupCrosscoder, config: TrainConfig) -> _Data:
    """Returns what is trained on and what is held out: all of `held_out_orbits`, or the share that `config` says.

    Raises:
        ArgumentError: the orbits held out are those that are trained on.
    """
    if held_out_orbits is None:
        return _Data(source, *split_by_image(source, config.held_out, config.seed), source)
    unseen = as_orbits(held_out_orbits, crosscoder.group.order, crosscoder.config.d_in, "held_out_orbits")
    if fingerprint(unseen) == fingerprint(source):
        raise argument_error(
            "held_out_orbits",
            expected="orbits of other photographs",
            got="those that are trained on",
            remedy="Harvest other images, or leave it out: TrainConfig(held_out=…) keeps some of the photographs.",
        )
    return _Data(source, torch.arange(len(source)), torch.arange(len(unseen)), unseen)


class _Loop:
    """A run: its start (fresh or from a checkpoint), its steps, its end."""

    def __init__(self, crosscoder: GroupCrosscoder, data: _Data, settings: dict[str, Any], config: TrainConfig) -> None:
        self.crosscoder, self.data, self.settings, self.config = crosscoder, data, settings, config
        self.directory = Path(config.out) if config.out is not None else None
        found = checkpoints.newest(self.directory / "checkpoints") if self.directory else None
        if found is not None:
            _same_settings(found.state["settings"], settings, found.path)
        # A resumed run has its centre: only the variance, for the figures, is still needed.
        statistics = measure(
            data.source, data.training, config if found is None else replace(config, init_b_dec="zero")
        )
        self.scale, centre = statistics.scale, crosscoder.form.centre(crosscoder, statistics.centre)
        self.optimizer = torch.optim.Adam(crosscoder.parameters(), lr=0.0, betas=config.betas, eps=1e-12, fused=True)
        self.resumed_from: int | None = None
        if found is not None:
            self.resumed_from, self.scale = int(found.state["step"]), float(found.state["scale"])
            _note_other_start(found, crosscoder, settings["start"])
            checkpoints.restore(found, crosscoder, self.optimizer)
            # Before training was centred, it read activations about 0.
            centre = found.training.get(checkpoints.CENTRE, torch.zeros_like(centre))
        else:
            if config.init_W_dec == "examples":
                initialise_decoder(crosscoder, data.source, data.training, centre, config)
            crosscoder.normalise_decoder_()
            crosscoder.start_biases_()
        self.variance = max(statistics.variance * self.scale**2, torch.finfo(torch.float32).tiny)
        device = crosscoder.W_dec.device
        self.centre = centre.to(device)
        self.batches = Batches(data.source, data.training, config, crosscoder.group, self.scale, self.centre)
        bf16 = config.precision == "bf16" or (config.precision == "auto" and device.type == "cuda")
        self.autocast: AbstractContextManager[object] = (
            torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()
        )
        self.started = time.monotonic()

    def run(self) -> None:
        """All steps that are left; the crosscoder then takes activations as they are, whatever happened."""
        config, start = self.config, self.resumed_from or 0
        held_out = self.data.held_out
        # Spread over all held-out images: the first examples alone would be of the first few.
        watched = held_out[:: max(1, -(-len(held_out) // config.eval_examples))]
        self.crosscoder.train()
        try:
            with MetricsLog(
                self.directory,
                start_step=start,
                steps=config.steps,
                progress=config.progress,
                tensorboard=config.tensorboard,
            ) as log:
                for step in range(start, config.steps):
                    self.step(step, log)
                    done = step + 1
                    evaluating = config.eval_every and done % config.eval_every == 0 and done < config.steps
                    if evaluating and len(held_out):
                        with self._folded():
                            metrics = evaluate(self.crosscoder, self.data.unseen, indices=watched)
                        log.write({"step": done, **{f"held_out/{k}": v for k, v in metrics.items()}})
                    if done % config.checkpoint_every == 0 or done == config.steps:
                        self._checkpoint(done)
        finally:
            self._fold_()
            self.crosscoder.eval()

    def step(self, step: int, log: MetricsLog) -> None:
        """One optimizer step, and its line in the log where one is due."""
        config, crosscoder = self.config, self.crosscoder
        examples, acts = self.batches.at_step(step)
        lr = config.learning_rate(step, crosscoder.config.n_latents)
        for parameter_group in self.optimizer.param_groups:
            parameter_group["lr"] = lr
        buffers_before = list(map(torch.clone, crosscoder.buffers()))
        try:
            with self.autocast:
                out = crosscoder(acts, progress=step / config.steps)
        except ArgumentError as error:
            unusable = (~acts.flatten(1).isfinite().all(1)).cpu()
            raise self._bad_batch(step, examples[unusable], "unusable activations (NaN or infinity)") from error
        loss = out.losses["total"]
        self.optimizer.zero_grad()
        loss.backward()
        with crosscoder.training_step(lr) as gradients:
            norm = torch.nn.utils.get_total_norm(gradients)
            if not bool((loss + norm).isfinite()):
                for buffer, before in zip(crosscoder.buffers(), buffers_before, strict=True):
                    buffer.copy_(before)
                raise self._bad_batch(step, examples, f"loss {float(loss.detach()):g}, gradient norm {float(norm):g}")
            if config.grad_clip and norm > config.grad_clip:
                torch.nn.utils.clip_grads_with_norm_(crosscoder.parameters(), config.grad_clip, norm)
            self.optimizer.step()
        log.bar.update()
        done = step + 1
        if config.resamples_after(done):
            self._resample(done)
        if done % config.log_every == 0 or done == config.steps:
            figures = {"grad_norm": float(norm), "lr": lr, "seconds": round(time.monotonic() - self.started, 3)}
            log.training(done, out, crosscoder.dead, self.variance, figures)

    @torch.no_grad()
    def _resample(self, done: int) -> None:
        """Dead latents start anew from the largest residuals of examples that (seed, step) fix."""
        crosscoder = self.crosscoder
        dead = crosscoder.dead.nonzero().flatten()
        if len(dead):
            with self.autocast:
                largest = largest_residuals(crosscoder, self.batches, done)
            resample_dead_(crosscoder, self.optimizer, dead, largest)

    def _checkpoint(self, done: int) -> None:
        if self.directory is None:
            return
        state = {
            "step": done,
            "scale": self.scale,
            "settings": self.settings,
            "config_hash": canonical_hash(self.settings),
            "data_cursor": {"seed": self.config.seed, "next_example": done * self.config.batch_size},
        }
        training = checkpoints.training_tensors(self.crosscoder, self.optimizer, self.centre)
        with self._folded():
            checkpoints.write(self.directory / "checkpoints", self.crosscoder, training, state, self.config.keep)

    @contextmanager
    def _folded(self) -> Iterator[None]:
        """Within, the crosscoder takes activations as they are."""
        crosscoder = self.crosscoder
        biases = [tensor.detach().clone() for tensor in crosscoder.form.biases(crosscoder)]
        self._fold_()
        try:
            yield
        finally:
            crosscoder.fold_scale_(1 / self.scale)
            # A centre that was added cannot be taken away again to the bit.
            with torch.no_grad():
                for tensor, before in zip(crosscoder.form.biases(crosscoder), biases, strict=True):
                    tensor.copy_(before)

    def _fold_(self) -> None:
        self.crosscoder.fold_scale_(self.scale)
        self.crosscoder.fold_centre_(self.centre)

    def finish(self) -> TrainResult:
        """Evaluates the trained crosscoder, and saves it with what it was made of."""
        source, training, held_out, unseen = self.data
        crosscoder, config = self.crosscoder, self.config
        evaluated, indices = (unseen, held_out) if len(held_out) else (source, training)
        metrics = evaluate(crosscoder, evaluated, indices=indices, progress=config.progress)
        quality = self._quality(metrics)
        crosscoder.provenance |= {
            "groupcc": groupcc.__version__,
            "torch": torch.__version__,
            "settings": self.settings,
            "metrics": metrics,
            "quality": quality.to_dict(),
        }
        if self.directory:
            crosscoder.save_pretrained(self.directory / "crosscoder")
        warn_of_doubts(quality, "train")
        return TrainResult(crosscoder, metrics, self.directory, self.resumed_from, quality)

    def _quality(self, metrics: dict[str, Any]) -> Quality:
        """What says whether the result can be read, from held-out `metrics` and a sample of the training examples."""
        source, training, held_out, unseen = self.data
        config = self.config
        sample = training[:: max(1, -(-len(training) // config.eval_examples))]
        seen = evaluate(self.crosscoder, source, indices=sample)
        return Quality(
            held_out_fvu=metrics["fvu"] if len(held_out) else None,
            training_fvu=seen["fvu"],
            dead_fraction=seen["dead_fraction"],
            examples_a_latent=config.steps * config.batch_size * seen["l0"] / self.crosscoder.config.n_latents,
            photographs=len(source.photograph_ids.cpu()[training].unique()),
            held_out_photographs=len(unseen.photograph_ids.cpu()[held_out].unique()),
        )

    def _bad_batch(self, step: int, examples: torch.Tensor, what: str) -> DataError:
        epoch = step * self.config.batch_size // len(self.data.training)
        return DataError(
            f"training stopped at step {step} (epoch {epoch}): {what} from "
            f"{describe_examples(self.data.source, examples)}. "
            "The crosscoder has the weights of the step before. Lower lr or grad_clip, or look at these examples."
        )


def _note_other_start(found: checkpoints.Checkpoint, crosscoder: GroupCrosscoder, start: str) -> None:
    """Warns if the resumed run did not start as the crosscoder at hand, which isn't the run's own result either."""
    if start not in (found.state["settings"]["start"], found.crosscoder.fingerprint()):
        warnings.warn(
            f"out: the run at {found.path} started from other weights than the crosscoder given; it goes on from step "
            f"{found.state['step']}, and these weights are replaced. To train them, choose another directory.",
            GroupccWarning,
            stacklevel=4,
        )


def _same_settings(saved: dict[str, Any], wanted: dict[str, Any], path: Path) -> None:
    """ArgumentError if a run was recorded with other settings. One that an older version did not record has its
    default."""
    remedy = "Use these settings again, or another out directory."
    recorded = {"crosscoder": CrosscoderConfig.from_dict(saved["crosscoder"]).to_dict(), "train": saved["train"]}
    for part, values in recorded.items():
        for name, value in wanted[part].items():
            if values.get(name) != value:
                raise argument_error(
                    name, expected=f"{values.get(name)!r}, as in the run at {path}", got=value, remedy=remedy
                )
    if saved["data"] != wanted["data"]:
        raise argument_error(
            "orbits",
            expected=f"the data of the run at {path}",
            got="other data",
            remedy="Train on the same orbits, or to another out directory.",
        )
