"""The ops as plain functions: torch tensors in, torch tensors out. One folder an op."""

from groupcc.ops._dispatch import current_backend, registered_ops, use_backend
from groupcc.ops._encodings import group_encoding, orbit_encoding
from groupcc.ops._single_blocks import single_blocks
from groupcc.ops._status import backend_status
from groupcc.ops.batchtopk import batchtopk
from groupcc.ops.decode_loss import decode_loss, decode_loss_maps
from groupcc.ops.encode_topk import encode_topk
from groupcc.ops.group_correlate import group_correlate
from groupcc.ops.group_correlate_max import group_correlate_max
from groupcc.ops.group_decode_loss import group_decode_loss
from groupcc.ops.group_encode_at import group_encode_at
from groupcc.ops.orbit_correlate import orbit_correlate, orbit_correlate_max
from groupcc.ops.orbit_encode import orbit_encode
from groupcc.ops.orbit_gather import orbit_gather
from groupcc.ops.pose_maxima import pose_maxima
from groupcc.ops.sparse_decode import sparse_decode
from groupcc.ops.topk import topk

__all__ = [
    "backend_status",
    "batchtopk",
    "current_backend",
    "decode_loss",
    "decode_loss_maps",
    "encode_topk",
    "group_correlate",
    "group_correlate_max",
    "group_decode_loss",
    "group_encode_at",
    "group_encoding",
    "orbit_correlate",
    "orbit_correlate_max",
    "orbit_encode",
    "orbit_encoding",
    "orbit_gather",
    "pose_maxima",
    "registered_ops",
    "single_blocks",
    "sparse_decode",
    "topk",
    "use_backend",
]
