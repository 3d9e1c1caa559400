"""Feature visualisation: the image that drives a latent most, found by gradient ascent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from groupcc.errors import argument_error, is_whole
from groupcc.harvesting.again import view_again
from groupcc.harvesting.store import OrbitStore
from groupcc.models import GroupCrosscoder
from groupcc.views.preprocess import PreprocessLike
from groupcc.visualization.ascent import Ascent
from groupcc.visualization.fourier_images import FourierImages
from groupcc.visualization.reading import PivotReader

__all__ = ["Visualization", "visualize"]

MIN_STEPS = 4
"""The least number of steps in a round: of fewer, the mean says more of the jitter than of the image."""
CHUNK = 1024
"""Examples of the store read at once."""


@dataclass(frozen=True, eq=False)
class Visualization:
    """What `visualize` found for each of `latents`.

    `images`: float32 [n, C, S, S] in [0, 1], S the side of the layer's receptive field. `pre_acts` [n]: the latent's
    pre-activation on its image, harvested under every element as the store was. `strongest` [n]: the largest
    pre-activation among the store's examples (of a tied crosscoder: in any pose).
    """

    latents: list[int]
    images: torch.Tensor
    pre_acts: torch.Tensor
    strongest: torch.Tensor

    @property
    def beats_examples(self) -> torch.Tensor:
        """Whether the image drives the latent more than the store's strongest example, bool [n].

        If it doesn't, it is no picture of what the latent wants most, and says little.
        """
        return self.pre_acts > self.strongest


def visualize(
    model: nn.Module | str,
    crosscoder: GroupCrosscoder,
    orbits: OrbitStore,
    latents: Sequence[int],
    *,
    weights: Any = None,
    preprocess: PreprocessLike = None,
    device: str | torch.device | None = None,
    channels: int = 3,
    rounds: int = 16,
    elements: int = 8,
    jitter: int = 2,
    lr: float = 0.1,
    seed: int = 0,
) -> Visualization:
    """An image for each of `latents`, by gradient ascent on its pre-activation at the pivot of the orbits' geometry.

    `Ascent` climbs on the coefficients of `FourierImages`. At each step the image is moved by up to `jitter` pixels
    (Olah, Mordvintsev and Schubert 2017, "Feature Visualization"). If the encoder reads all blocks, the pre-activation
    is Σ_g ⟨a_g, W_enc[l, g]⟩ + b over the image's whole orbit. A step follows about `elements` terms of that sum. In a
    round every element has its turn, in a random order, so that none counts for more. An encoder "identity" sees the
    upright image alone. A tied crosscoder is read in pose e. The pre-activation that is reported at the end is the
    exact sum, from `groupcc.harvest` on the finished image.

    The image shows what drives the latent most. It need not look like anything in a photograph.

    Args:
        model, weights, preprocess: as given to `harvest` for `orbits`; `preprocess` is needed only if it was a
            callable. The layer is the store's.
        device: where the model runs; by default where it is.
        channels: of the model's input, if it is no RGB.
        rounds: how often every element has its turn. 16 rounds of D16 are 64 steps.
        lr: the step's length at the start, see `Ascent`.

    Values are those of pixels in [0, 1]. Deterministic on the CPU for one seed. An image's starting values depend on
    which other latents are asked for.

    Raises:
        ArgumentError: no latents, or some that the crosscoder lacks; settings out of range; a model or crosscoder that
            doesn't belong to the orbits.
    """
    chosen = _check(crosscoder, orbits, latents, channels=channels, rounds=rounds, elements=elements, jitter=jitter)
    if not is_whole(seed, 0):
        raise argument_error("seed", expected="a whole number of at least 0", got=seed, remedy="0 is the default.")
    if isinstance(lr, bool) or not isinstance(lr, (int, float)) or not 0 < lr < float("inf"):
        raise argument_error("lr", expected="a number above 0", got=lr, remedy="Leave it out for the default.")
    view = view_again(orbits, model, weights, preprocess=preprocess, device=device, channels=channels)
    reader = PivotReader(view)
    W_nHGD, b_nH = (part.detach().float().cpu() for part in crosscoder.encoder_rows(chosen))
    group = orbits.group
    reads = list(range(group.order)) if W_nHGD.shape[2] > 1 else [group.identity]
    W_nGD = W_nHGD[:, group.identity].to(reader.view.device)
    if reader.view.orbit == "map":  # at the pivot every element reads the same
        W_nGD, reads = W_nGD.sum(1, keepdim=True), [group.identity]

    generator = torch.Generator().manual_seed(seed)
    pictures = FourierImages(len(chosen), channels, reader.side, generator)
    ascent = Ascent(pictures.coefficients, lr)
    with torch.enable_grad():
        for _ in range(rounds):
            reached = torch.zeros(len(chosen))
            for drawn in _parts(len(reads), elements, generator):
                shift = torch.randint(-jitter, jitter + 1, (2,), generator=generator).tolist()
                patches = pictures().roll(shift, dims=(-2, -1))
                some = [reads[g] for g in drawn]
                reached += _climb(reader, pictures.coefficients, patches, some, W_nGD[:, drawn], ascent).cpu()
            ascent.end_round(reached)
    with torch.no_grad():
        images = pictures()
    pre_acts = _pre_acts(reader.harvested(images), W_nHGD[:, :1], b_nH[:, :1]).diagonal()
    side = orbits.lattice.receptive_field
    edge = max(0, (reader.side - side) // 2)
    inner = slice(edge, reader.side - edge)
    return Visualization(chosen, images[..., inner, inner].float(), pre_acts, _strongest(orbits, W_nHGD, b_nH))


def _climb(
    reader: PivotReader,
    coefficients: torch.Tensor,
    patches: torch.Tensor,
    elements: list[int],
    W_nED: torch.Tensor,
    ascent: Ascent,
) -> torch.Tensor:
    """One step up the terms of the pre-activations that these elements give. `coefficients` make the patches.

    Returns the sum of the terms for each patch, [n].
    """
    pre_n = torch.einsum("ngd,ngd->n", reader.read(patches, elements), W_nED)
    # Gradients to the images alone: the model's parameters keep theirs as they were.
    (gradient,) = torch.autograd.grad(pre_n.sum(), [coefficients])
    ascent.step(gradient)
    return pre_n.detach()


def _check(crosscoder: GroupCrosscoder, orbits: OrbitStore, latents: Sequence[int], **settings: Any) -> list[int]:
    """The latents as a list, every argument checked."""
    config = crosscoder.config
    chosen = latents.tolist() if isinstance(latents, (np.ndarray, torch.Tensor)) else list(latents)
    if not chosen or any(not is_whole(latent, 0) or latent >= config.n_latents for latent in chosen):
        expected = f"at least one index from 0 to {config.n_latents - 1}"
        raise argument_error("latents", expected=expected, got=chosen, remedy="Choose latents of this crosscoder.")
    if crosscoder.group != orbits.group or config.d_in != orbits.d_in:
        raise argument_error(
            "orbits",
            expected=f"orbits under {config.group} of {config.d_in} channels, as the crosscoder's",
            got=f"orbits under {orbits.group.name} of {orbits.d_in} channels",
            remedy="Give the orbits that it was trained on.",
        )
    for name, value in settings.items():
        least = int(name != "jitter")
        if not is_whole(value, least):
            remedy = "Leave it out for the default."
            raise argument_error(name, expected=f"a whole number of at least {least}", got=value, remedy=remedy)
    return [int(latent) for latent in chosen]


def _parts(count: int, size: int, generator: torch.Generator) -> list[list[int]]:
    """0 … count−1 in a random order, in parts of `size` or a little less; again until there are `MIN_STEPS` parts."""
    repeats = -(-MIN_STEPS // -(-count // size))
    orders = [torch.randperm(count, generator=generator) for _ in range(repeats)]
    return [part.tolist() for order in orders for part in order.tensor_split(-(-count // size))]


def _pre_acts(acts_NGD: torch.Tensor, W_nHGD: torch.Tensor, b_nH: torch.Tensor) -> torch.Tensor:
    """[N, n], in the pose that gives most."""
    n, H, G, _ = W_nHGD.shape
    pre = acts_NGD[:, :G].flatten(1) @ W_nHGD.flatten(2).flatten(0, 1).T + b_nH.flatten()
    return pre.view(len(acts_NGD), n, H).amax(2)


def _strongest(orbits: OrbitStore, W_nHGD: torch.Tensor, b_nH: torch.Tensor) -> torch.Tensor:
    starts = range(0, len(orbits), CHUNK)
    largest = [_pre_acts(orbits[start : start + CHUNK], W_nHGD, b_nH).amax(0) for start in starts]
    return torch.stack(largest).amax(0)
