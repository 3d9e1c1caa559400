"""The group crosscoder: configuration, module, files."""

from groupcc.models.config import CrosscoderConfig
from groupcc.models.crosscoder import CrosscoderOutput, GroupCrosscoder
from groupcc.models.latents import SparseLatents

__all__ = ["CrosscoderConfig", "CrosscoderOutput", "GroupCrosscoder", "SparseLatents"]
