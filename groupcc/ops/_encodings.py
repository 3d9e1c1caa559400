"""group_encoding, orbit_encoding: pre-activations of base latents in every pose, formed only if a caller needs them.

The backend in force and the sizes decide which way costs least. These objects ask them, and their callers need not:
a caller says what it wants of z, and gets it by kernels that leave z, or the orbits, out of memory where such run.
"""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._checks import check_bias, check_blocks, check_correlate, check_poses, wrong
from groupcc.ops._dispatch import needs_gradient
from groupcc.ops.group_correlate import group_correlate
from groupcc.ops.group_correlate_max import OP as CORRELATE_MAX
from groupcc.ops.group_correlate_max import Args as CorrelateMaxArgs
from groupcc.ops.group_encode_at import OP as ENCODE_AT
from groupcc.ops.group_encode_at import Args as EncodeAtArgs
from groupcc.ops.orbit_correlate import OP as ORBIT_CORRELATE
from groupcc.ops.orbit_correlate import Args as OrbitCorrelateArgs
from groupcc.ops.orbit_correlate import check_orbits
from groupcc.ops.orbit_gather import orbit_gather

__all__ = ["GroupEncoding", "OrbitEncoding", "group_encoding", "orbit_encoding"]

_ONE_BIAS = "One bias for each base latent, in the dtype of W."


class GroupEncoding:
    """z = group_correlate(acts, W) + b [N, L, G] of one batch. Made by `group_encoding`."""

    def __init__(
        self, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group, chosen: int | None
    ) -> None:
        check_correlate(acts_NGD, W_LGD, group)
        check_bias("b", b_L, W_LGD, len(W_LGD), _ONE_BIAS)
        self._acts_NGD, self._W_LGD, self._b_L, self._group = acts_NGD, W_LGD, b_L, group
        self._z_NLG: torch.Tensor | None = None
        self._gradients_later = False
        if chosen is not None and torch.is_grad_enabled():
            nothing = torch.empty(0, chosen, dtype=torch.int64, device=acts_NGD.device)
            args = EncodeAtArgs(acts_NGD, W_LGD, b_L, nothing, nothing, None, group)
            self._gradients_later = ENCODE_AT.has_kernels_for(args)

    def pre_acts(self) -> torch.Tensor:
        """Returns z [N, L, G]. z is formed once."""
        if self._z_NLG is None:
            with self._recording():
                z_NLG = group_correlate(self._acts_NGD, self._W_LGD, self._group)
                self._z_NLG = z_NLG + self._b_L[:, None]
        return self._z_NLG

    def strongest(self, latents: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the largest z over the poses, and the pose that has it, of these latents (None: all): [N, n] each.

        z is formed if no kernel leaves it out of memory, and then kept for later calls. Of some latents alone z is not
        formed: their values are read from it if it is there, else computed.
        """
        given = self._acts_NGD, self._W_LGD, self._b_L
        with self._recording():
            if self._z_NLG is None:
                if latents is not None:
                    given = given[0], given[1][latents], given[2][latents]
                args = CorrelateMaxArgs(*given, self._group, needs_gradient(given))
                if latents is not None or CORRELATE_MAX.has_kernels_for(args):
                    return CORRELATE_MAX(args)
            z_NLG = self.pre_acts()
            values, poses = (z_NLG if latents is None else z_NLG[:, latents]).max(2)
            return values, poses

    def with_gradients(self, indices: torch.Tensor, poses: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        """Returns acts [N, K] that were chosen from z, with their gradients.

        `indices` and `poses` [N, K] say where each act stands in z. If z has gradients, `acts` is returned as it is.
        ArgumentError for shapes and dtypes.
        """
        if not self._gradients_later:
            return acts
        check_poses(poses, indices)
        expected = len(self._acts_NGD), indices.shape[1]
        if acts.shape != expected or indices.shape != expected or acts.dtype != self._acts_NGD.dtype:
            raise wrong(
                "acts",
                acts,
                f"{self._acts_NGD.dtype} of shape [N, K] = {expected}, the shape of indices",
                "One act for each of indices, of every example.",
            )
        given = self._acts_NGD, self._W_LGD, self._b_L
        return ENCODE_AT(EncodeAtArgs(*given, indices, poses, acts.detach(), self._group))

    def _recording(self) -> torch.set_grad_enabled:
        """A context in which gradients are recorded as outside, but not if `with_gradients` computes them."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self._gradients_later)


class OrbitEncoding:
    """The z of the orbits in feature maps. Made by `orbit_encoding`."""

    def __init__(
        self,
        maps_BSHWD: torch.Tensor,
        points_GP2: torch.Tensor,
        W_LGD: torch.Tensor,
        b_L: torch.Tensor,
        group: Group,
        interpolation: str,
        chosen: int | None,
    ) -> None:
        self._maps_BSHWD, self._points_GP2, self._interpolation = maps_BSHWD, points_GP2, interpolation
        self._W_LGD, self._b_L, self._group, self._chosen = W_LGD, b_L, group, chosen
        self._of_orbits: GroupEncoding | None = None

    def pre_acts(self) -> torch.Tensor:
        """Returns z [B·P, L, G]."""
        maps_BSHWD = self._maps_BSHWD.to(self._W_LGD.dtype)
        given = maps_BSHWD, self._points_GP2, self._W_LGD
        args = OrbitCorrelateArgs(*given, None, self._group, self._interpolation)
        if not ORBIT_CORRELATE.has_kernels_for(args):
            return self._gathered().pre_acts()
        z_NLG, _ = ORBIT_CORRELATE(args)
        return z_NLG + self._b_L[:, None]

    def strongest(self, latents: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what `GroupEncoding.strongest` returns. Of some latents alone it is read from gathered orbits."""
        if latents is not None:
            return self._gathered().strongest(latents)
        maps_BSHWD = self._maps_BSHWD.to(self._W_LGD.dtype)
        given = maps_BSHWD, self._points_GP2, self._W_LGD, self._b_L
        args = OrbitCorrelateArgs(*given, self._group, self._interpolation)
        if not ORBIT_CORRELATE.has_kernels_for(args):
            return self._gathered().strongest()
        values, poses = ORBIT_CORRELATE(args)
        assert poses is not None
        return values, poses

    def with_gradients(self, indices: torch.Tensor, poses: torch.Tensor, acts: torch.Tensor) -> torch.Tensor:
        """See `GroupEncoding.with_gradients`."""
        return acts if self._of_orbits is None else self._of_orbits.with_gradients(indices, poses, acts)

    def _gathered(self) -> GroupEncoding:
        if self._of_orbits is None:
            acts_NGD = orbit_gather(self._maps_BSHWD, self._points_GP2, self._interpolation).to(self._W_LGD.dtype)
            self._of_orbits = GroupEncoding(acts_NGD, self._W_LGD, self._b_L, self._group, self._chosen)
        return self._of_orbits


def group_encoding(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: Group, chosen: int | None = None
) -> GroupEncoding:
    """Returns an object with z[n, l, h] = Σ_g ⟨W[l, gh], acts[n, g]⟩ + b[l], which is computed as it is asked for.

    - `acts` [N, G, D], `W` [L, G, D], `b` [L], in one floating dtype.
    - `chosen`: how many entries of z an example will give to `with_gradients`. z may then have no gradients of its own,
      if those of the chosen entries alone cost less on the backend in force. None: gradients go through z.
    - `pre_acts()` returns z, `strongest(latents=None)` its largest over the poses and where, `with_gradients(indices,
      poses, acts)` the chosen acts with gradients to `acts`, `W` and `b`.

    Equal values, NaN, roundings and gradients are those of `group_correlate`, `group_correlate_max` and
    `group_encode_at`. Deterministic on the CPU. ArgumentError for shapes and dtypes.

    Example: the k strongest latents of an example, each in its strongest pose.

        encoding = ops.group_encoding(acts, W, b, group, chosen=k)
        values, poses = encoding.strongest()
        acts, indices = ops.topk(values, k)
        acts = encoding.with_gradients(indices, poses.gather(1, indices), acts)
    """
    return GroupEncoding(acts, W, b, group, chosen)


def orbit_encoding(
    maps: torch.Tensor,
    points: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor,
    group: Group,
    interpolation: str = "bilinear",
    chosen: int | None = None,
) -> OrbitEncoding:
    """Returns `group_encoding` of orbit_gather(maps, points), whose orbits are in memory only if no kernel reads maps.

    `maps`, `points`, `interpolation`: as in [`orbit_gather`][groupcc.ops.orbit_gather]. z is computed in the dtype of
    `W` and `b`, into which maps, or gathered orbits, are converted. Gradients flow to `maps`, `W` and `b`.

    ArgumentError for shapes, dtypes, or points outside the map.
    """
    check_orbits(maps, points, group, interpolation)
    check_blocks("W", W, maps.new_empty(0, group.order, maps.shape[-1], dtype=W.dtype), group)
    check_bias("b", b, W, len(W), _ONE_BIAS)
    return OrbitEncoding(maps, points, W, b, group, interpolation, chosen)
