"""The group crosscoder: configuration, module, files."""

from groupcc.models.config import CrosscoderConfig
from groupcc.models.crosscoder import CrosscoderOutput, GroupCrosscoder
from groupcc.models.latents import SparseLatents
from groupcc.models.orbits import Orbits, as_orbits

__all__ = ["CrosscoderConfig", "CrosscoderOutput", "GroupCrosscoder", "Orbits", "SparseLatents", "as_orbits"]
