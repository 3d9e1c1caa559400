"""equivariant_net: a small trained net of D4 group convolutions, in which the orbit of every filter is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from groupcc.errors import DataError, argument_error, check_choice
from groupcc.groups import PlanarSubgroup
from groupcc.groups.planar import dihedral
from groupcc.groups.translate import translate
from groupcc.zoo.net import checked_state
from groupcc.zoo.planted import PlantedDictionary
from groupcc.zoo.planted_drawing import coset_heads

__all__ = ["EquivariantNet", "GroupConv", "equivariant_net"]

GROUP = dihedral(4)
MIN_SIZE = 65
WEIGHTS = Path(__file__).with_name("equivariant_net.safetensors")

LIFTED = ("D4", "C4", "D2@0°", "C2", "D1@0°", "D1@45°", "C1", "C1", "C1", "C1")
SECOND = ("D4", "D4", "C4", "D2@0°", "D2@45°", "C2", "D1@0°", "D1@0°", "D1@45°", "C1", "C1", "C1", "C1", "C1")
TOP = ("C1",) * 20
"""Symmetry of each filter of a layer: the subgroup of D4 that leaves the filter in its pose 0 alone."""

THRESHOLD = 1.5
"""What the layer `second` leaves out, in standard deviations of a filter's answers."""


class GroupConv(nn.Module):
    """Convolution over D4 (Cohen and Welling 2016), batch norm, ReLU: every filter in all eight poses.

    The channel of filter c in pose h is 8c + h. With w_c the kernel of filter c, and T_h w_c(q) = w_c(h⁻¹q),

        y_(c,h)(p) = Σ_q ⟨w_c(h⁻¹q), x(p + q)⟩                     of an image x (`poses_in` 1), or
        y_(c,h)(p) = Σ_(b,k,q) w_c[b, h⁻¹k](h⁻¹q)·x_(b,k)(p + q)    of channels x that are in poses themselves.

    So the layer of T_g x at g·p has in channel (c, h) what the layer of x at p has in (c, g⁻¹h). The layer is
    equivariant by its construction, whatever its parameters are: a batch norm has one mean, one variance, one scale
    and one shift for all poses of a filter. A filter's kernel is averaged over the filter's stabilizer H, so the poses
    hH are one and the same, and the channels of these poses are equal.

    With a `threshold` t the layer is sparse: the batch norm has no scale and shift, and ReLU(z − t) is what is left of
    the normalised z. So a filter fires seldom.

    Zero padding. At stride 2 the input must have odd sides, for index u to be centred on input pixel 2u at every turn.
    """

    rotated: Tensor
    relative: Tensor
    symmetric: Tensor

    def __init__(
        self,
        d_in: int,
        stabilizers: Sequence[PlanarSubgroup],
        kernel: int,
        *,
        lifting: bool = False,
        threshold: float = 0.0,
    ) -> None:
        super().__init__()
        self.threshold = threshold
        self.stabilizers = tuple(stabilizers)
        self.poses_in = 1 if lifting else GROUP.order
        self.weight = nn.Parameter(torch.empty(len(self.stabilizers), d_in, self.poses_in, kernel, kernel))
        self.norm = nn.BatchNorm3d(len(self.stabilizers), affine=threshold == 0)
        nn.init.kaiming_normal_(self.weight.flatten(1, 2))
        relative = GROUP.cayley[GROUP.inverse] if self.poses_in > 1 else np.zeros((GROUP.order, 1), np.int64)
        for name, values in (("rotated", _rotated(kernel)), ("relative", relative), ("symmetric", self._averages())):
            self.register_buffer(name, torch.from_numpy(np.array(values)), persistent=False)

    def _averages(self) -> np.ndarray:
        """Returns float32 [filters, H, H]: the kernel in pose h is the mean of those in the poses hH."""
        masks = [
            [np.isin(GROUP.cayley[GROUP.inverse[h]], s.elements) for h in range(GROUP.order)] for s in self.stabilizers
        ]
        return (np.array(masks) / np.array([len(s.elements) for s in self.stabilizers])[:, None, None]).astype(
            np.float32
        )

    def kernels(self) -> Tensor:
        """Returns the kernels of all channels, [8·filters, d_in·poses_in, k, k]."""
        filters, d_in, poses, size, _ = self.weight.shape
        turned = self.weight.flatten(3)[:, :, self.relative[:, :, None], self.rotated[:, None, :]]
        turned = torch.einsum("chg,cbgkq->chbkq", self.symmetric.to(turned.dtype), turned)
        return turned.reshape(filters * GROUP.order, d_in * poses, size, size)

    def forward(self, x: Tensor) -> Tensor:
        kernels = self.kernels()
        y = F.conv2d(x, kernels, stride=2, padding=kernels.shape[-1] // 2)
        return (self.norm(y.unflatten(1, (-1, GROUP.order))) - self.threshold).relu().flatten(1, 2)


class EquivariantNet(nn.Module):
    """`lift` 7x7 (80 channels), `second` 5x5 (112), `top` 3x3 (160), each of stride 2; mean over poses; `classifier`.

    `second` is the sparse one, with a threshold. The layer has stride 4 and offset 0: its index u is centred on input
    pixel 4u. Logits are invariant under D4.

    Input: float RGB in [0, 1], [B, 3, H, W] with H and W of 8n + 1 pixels, n >= 8; normalised inside. Output: logits
    [B, n_classes].

    Raises (forward):
        ArgumentError: an input of another type, shape or size.
    """

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.lift = GroupConv(3, _subgroups(LIFTED), 7, lifting=True)
        self.second = GroupConv(len(LIFTED), _subgroups(SECOND), 5, threshold=THRESHOLD)
        self.top = GroupConv(len(SECOND), _subgroups(TOP), 3)
        self.classifier = nn.Linear(len(TOP), n_classes)

    def forward(self, x: Tensor) -> Tensor:
        fits = isinstance(x, Tensor) and x.is_floating_point() and x.ndim == 4 and x.shape[1] == 3
        if not fits or min(x.shape[2:]) < MIN_SIZE or any(side % 8 != 1 for side in x.shape[2:]):
            raise argument_error(
                "x",
                expected=f"float RGB in [0, 1], [B, 3, H, W] with H and W of 8n + 1 pixels, at least {MIN_SIZE}",
                got=f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__,
                remedy="Divide uint8 pixels by 255. At other sizes a turn by 90° moves the places that stride 2 reads.",
            )
        x = self.top(self.second(self.lift((x - 0.45) / 0.25)))
        return self.classifier(x.unflatten(1, (-1, GROUP.order)).mean((2, 3, 4)))

    def truth(self, layer: str = "second") -> PlantedDictionary:
        """Returns what a dictionary of a layer's orbits under D4 may hold: the atoms that single filters write.

        The orbit of an image is a_g = Σ_(c,h) y_(c,h)·e_(c,gh), with e the channels' unit vectors. So filter c in pose
        h writes the atom (d_(c,h))_g = e_(c,gh), summed over the poses hH, which are one. The atom's stabilizer is
        hHh⁻¹. All atoms of a filter are one family, in which every pose has a detector.
        """
        check_choice("layer", layer, ("lift", "second", "top"), "These are the layers in poses.")
        stabilizers = list(self.get_submodule(layer).stabilizers)  # type: ignore[arg-type]
        base = torch.zeros(len(stabilizers), GROUP.order, len(stabilizers) * GROUP.order)
        for c, subgroup in enumerate(stabilizers):
            for g in range(GROUP.order):
                base[c, g, GROUP.order * c + torch.from_numpy(GROUP.cayley[g, subgroup.elements])] = 1.0
        base /= base.flatten(1).norm(dim=1)[:, None, None]
        heads = [coset_heads(GROUP, subgroup) for subgroup in stabilizers]
        atom_base = torch.arange(len(heads)).repeat_interleave(torch.tensor([len(h) for h in heads]))
        atom_pose = torch.tensor([h for poses in heads for h in poses])
        atoms = translate(base[atom_base], GROUP, atom_pose)
        return PlantedDictionary(GROUP, base, stabilizers, atoms, atom_base, atom_pose)


def equivariant_net(weights: str | Path | None = None) -> EquivariantNet:
    """Returns the trained equivariant net: on the CPU, float32, in eval mode, its parameters frozen.

    A positive control: whatever is learned there comes in whole orbits. Trained on the photographs of
    `photographs("train")` by `python -m groupcc.zoo.train_equivariant`. The weights are stored as `load_net` has them.

    Args:
        weights: another file of that script; None for the bundled one.

    Raises:
        DataError: the weights or their record are missing, damaged, or not of this architecture.
    """
    path = WEIGHTS if weights is None else Path(weights)
    remedy = "Reinstall groupcc." if weights is None else "Write it again with python -m groupcc.zoo.train_equivariant."
    state = checked_state(path, remedy)
    try:
        with torch.random.fork_rng(devices=[]):
            net = EquivariantNet(state["classifier.weight"].shape[0])
        missing, unexpected = net.load_state_dict({k: v.to(torch.float32) for k, v in state.items()}, strict=False)
    except (KeyError, RuntimeError, IndexError) as error:
        raise DataError(f"{path} does not hold the weights of EquivariantNet ({error}). {remedy}") from error
    lacking = [key for key in missing if not key.endswith("num_batches_tracked")]
    if lacking or unexpected:
        raise DataError(f"{path} does not hold the weights of EquivariantNet ({lacking + unexpected}). {remedy}")
    return net.eval().requires_grad_(False)


def _rotated(size: int) -> np.ndarray:
    """Returns int64 [H, size²]: where T_h w takes the values of its pixels from, T_h w(q) = w(h⁻¹q)."""
    along = np.arange(size) - size // 2
    points = np.stack(np.meshgrid(along, along), -1).reshape(-1, 2)
    back = np.einsum("hij,pj->hpi", GROUP.matrices[GROUP.inverse], points).round().astype(np.int64) + size // 2
    return back[..., 1] * size + back[..., 0]


def _subgroups(labels: Sequence[str]) -> list[PlanarSubgroup]:
    return [GROUP.subgroup_named(label) for label in labels]
