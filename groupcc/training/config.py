"""TrainConfig: how a crosscoder is trained."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from groupcc import _defaults
from groupcc.errors import argument_error, is_whole

__all__ = ["TrainConfig"]

Initialisation = Literal["geometric_median", "mean", "zero"]
DecoderInitialisation = Literal["random", "examples"]
Precision = Literal["auto", "fp32", "bf16"]

# What may differ between a run and its resumption without changing the result.
_FREE = ("out", "progress", "tensorboard", "device", "checkpoint_every", "keep", "log_every")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of [`train`][groupcc.train].

    - `steps`, `batch_size`: optimizer steps, and examples in each.
    - `lr`: Adam's learning rate at its height; None is 2e-4·√(16384 / n_latents), at most 4e-3 (the scaling of Gao
      et al. 2024). `warmup_steps`: linear rise (None is 5 % of steps). `decay_fraction`: share of the steps, at the
      end, over which it falls linearly to zero. `betas`, `grad_clip` (largest gradient norm; 0 is off).
    - `init_b_dec`: the centre of the activations that training reads them about, and where b_dec starts:
      "geometric_median" or "mean", or "zero". One for all blocks with `augment` or tied.
    - `init_W_dec`: "random" keeps the crosscoder's own random start; "examples" starts each latent as one training
      example about b_dec (a random translate of it with `augment`), and the encoder as its transpose: nearly every
      latent then lives from the start.
    - `resample_every`: every so many steps, until the learning rate begins to fall, dead latents (by the crosscoder's
      `dead_after`) start anew from what examples of four batches have left unexplained: what is most often missing
      first, and no two latents alike. A shape that is rare, or whose base latent lost to others, is then found. 0 is
      off; None is a 20th of the steps, and off below 200 steps. After Bricken et al. 2023, who draw examples by their
      loss.
    - `normalise`: scale activations to unit mean square about their mean while training (by a power of two; folded
      back exactly into the saved weights).
    - `augment`: replace each example a by its translate R_h a, (R_h a)_g = a_{gh}, h drawn anew each time: the orbit
      of the image's transform T_h x, at no cost in forward passes. Makes little data go |G| times as far, and the
      data symmetric: a dictionary trained so no longer shows which orientations the photographs prefer. False shows
      them.
    - `held_out`: share of the photographs kept for evaluation, never single positions; 0 is none. `train` can be given
      orbits of other photographs instead (`held_out_orbits`). `eval_every`: steps between evaluations (0: only at the
      end). `eval_examples`: at most so many of them each time.
    - `precision`: "bf16" runs the products under autocast with fp32 weights; "auto" does so on CUDA only (on CPUs it
      gained nothing in our measurements).
    - `out`: directory for checkpoints, metrics.jsonl and the trained crosscoder; None keeps nothing.
      `checkpoint_every` steps; the newest `keep` stay. `log_every`: steps between lines of metrics.jsonl.
    - `seed`: order of the examples. `device`: None is where the crosscoder is. `progress`: the bar.
      `tensorboard`: write event files too (extra "tensorboard").
    """

    steps: int = _defaults.STEPS
    batch_size: int = _defaults.BATCH_SIZE
    lr: float | None = None
    warmup_steps: int | None = None
    decay_fraction: float = 0.2
    betas: tuple[float, float] = (0.9, 0.999)
    grad_clip: float = 1.0
    init_b_dec: Initialisation = "geometric_median"
    init_W_dec: DecoderInitialisation = "random"
    normalise: bool = True
    resample_every: int | None = None
    augment: bool = _defaults.AUGMENT
    held_out: float = _defaults.HELD_OUT
    eval_every: int = 0
    eval_examples: int = 8192
    precision: Precision = "auto"
    seed: int = 0
    out: str | Path | None = None
    checkpoint_every: int = _defaults.CHECKPOINT_EVERY
    keep: int = 2
    log_every: int = 50
    progress: bool = True
    tensorboard: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.betas, (tuple, list)) or not (
            len(self.betas) == 2 and all(_is_number(beta) and 0 <= beta < 1 for beta in self.betas)
        ):
            self._refuse("betas", "two numbers from 0 up to (not with) 1")
        object.__setattr__(self, "betas", tuple(self.betas))
        if not is_whole(self.seed):
            self._refuse("seed", "a whole number")
        for name, minimum in (
            ("steps", 1),
            ("batch_size", 1),
            *([] if self.resample_every is None else [("resample_every", 0)]),
            ("eval_every", 0),
            ("eval_examples", 1),
            ("checkpoint_every", 1),
            ("keep", 1),
            ("log_every", 1),
        ):
            if not is_whole(getattr(self, name), minimum):
                self._refuse(name, f"a whole number >= {minimum}")
        if self.lr is not None and not (_is_number(self.lr) and self.lr > 0):
            self._refuse("lr", "a positive number, or None for the default")
        warmup = 0 if self.warmup_steps is None else self.warmup_steps
        if not (_is_number(warmup) and 0 <= warmup <= self.steps):
            self._refuse("warmup_steps", f"0 to steps = {self.steps}, or None for 5 % of them")
        if not (_is_number(self.decay_fraction) and 0 <= self.decay_fraction <= 1):
            self._refuse("decay_fraction", "a share from 0 to 1")
        if not (_is_number(self.held_out) and 0 <= self.held_out < 1):
            self._refuse("held_out", "a share of the photographs from 0 up to (not with) 1")
        if not (_is_number(self.grad_clip) and self.grad_clip >= 0):
            self._refuse("grad_clip", "a norm >= 0 (0 is off)")
        for name, choices in (
            ("init_b_dec", Initialisation),
            ("init_W_dec", DecoderInitialisation),
            ("precision", Precision),
        ):
            if getattr(self, name) not in get_args(choices):
                self._refuse(name, f"one of {', '.join(get_args(choices))}")

    def _refuse(self, name: str, expected: str) -> None:
        raise argument_error(
            name, expected=expected, got=getattr(self, name), remedy=f"Set TrainConfig({name}=…) accordingly."
        )

    def learning_rate(self, step: int, n_latents: int) -> float:
        """The learning rate of step 0, 1, …: linear warm-up, constant, linear decay to zero."""
        peak = self.lr if self.lr is not None else min(2e-4 * (16384 / n_latents) ** 0.5, 4e-3)
        warmup = self.warmup_steps if self.warmup_steps is not None else self.steps // 20
        decay = self.decay_fraction * self.steps
        rise = (step + 1) / (warmup + 1) if step < warmup else 1.0
        fall = (self.steps - step) / decay if self.steps - step < decay else 1.0
        return peak * min(rise, fall)

    def resamples_after(self, steps: int) -> bool:
        """Whether dead latents start anew once so many steps are done; what starts as the rate falls learns little."""
        every = self.resample_every
        if every is None:
            every = self.steps // _defaults.RESAMPLINGS if self.steps >= _defaults.RESAMPLING_STEPS else 0
        return bool(every and steps % every == 0 and steps < self.steps * (1 - self.decay_fraction))

    def dead_after(self) -> int:
        """Returns after how many examples without firing a latent is dead, if the crosscoder does not say."""
        wait = max(self.steps * self.batch_size // _defaults.DEAD_SHARE, _defaults.DEAD_BATCHES * self.batch_size)
        return min(wait, _defaults.DEAD_AFTER)

    def resumable_settings(self) -> dict[str, Any]:
        """The settings that a resumed run must share with the interrupted one."""
        values = dataclasses.asdict(self)
        for name in _FREE:
            values.pop(name)
        values["betas"] = list(self.betas)
        return values


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
