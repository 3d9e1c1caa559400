"""The group crosscoder: configuration, module, files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groupcc._lazy import lazy_names

if TYPE_CHECKING:
    from groupcc.models.config import CrosscoderConfig as CrosscoderConfig
    from groupcc.models.crosscoder import CrosscoderOutput as CrosscoderOutput
    from groupcc.models.crosscoder import GroupCrosscoder as GroupCrosscoder
    from groupcc.models.latents import SparseLatents as SparseLatents

_HOMES = {
    "CrosscoderConfig": "config",
    "CrosscoderOutput": "crosscoder",
    "GroupCrosscoder": "crosscoder",
    "SparseLatents": "latents",
}

# The command line reads the kinds below this package without PyTorch.
__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
