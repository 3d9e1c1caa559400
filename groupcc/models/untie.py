"""From a tied crosscoder to the ordinary one that has its atoms for latents."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from groupcc.errors import argument_error
from groupcc.models import residual, tied

if TYPE_CHECKING:
    from groupcc.models.crosscoder import GroupCrosscoder

__all__ = ["untie"]


@torch.no_grad()
def untie(crosscoder: GroupCrosscoder) -> GroupCrosscoder:
    """See `GroupCrosscoder.untie`."""
    config, G = crosscoder.config, crosscoder.group.order
    if not config.tied:
        raise argument_error(
            "self", expected="a tied crosscoder", got="tied=False", remedy="It has its own latents already."
        )
    wide = replace(config, tied=False, residual_penalty=None, n_latents=config.n_atoms)
    untied = type(crosscoder)(wide).to(crosscoder.W_dec)
    W_dec, b_dec = crosscoder._decoder()
    W_enc, b_enc = residual.encoder(crosscoder)
    untied.W_enc.copy_(W_enc)
    untied.W_dec.copy_(tied.translates(W_dec, crosscoder.group) if config.tied is True else W_dec)
    untied.b_enc.copy_(b_enc)
    untied.b_dec.copy_(b_dec.expand(G, -1))
    untied.sparsity.copy_state_(crosscoder, untied, copies=G)
    untied.since_fired.copy_(crosscoder.since_fired.repeat_interleave(G))
    untied.provenance = dict(crosscoder.provenance)
    return untied.train(crosscoder.training)
