"""What the ops are compared with. Each function returns a call without arguments, ready to be timed."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

__all__ = [
    "PACKAGES",
    "NotInstalled",
    "dense_backward",
    "dense_decode",
    "embedding_bag",
    "faiss_heap",
    "grid_sample",
    "onnxruntime_topk",
    "sparsify_backward",
    "sparsify_decode",
    "torch_batchtopk",
    "torch_topk",
]

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx"),
    "faiss": ("faiss-cpu",),
    "sparsify": ("eai-sparsify",),
    "overcomplete": ("overcomplete",),
    "dictionary_learning": ("dictionary-learning",),
}
"""The distributions that a peer's module comes with, as pip knows them."""

Call = Callable[[], Any]


class NotInstalled(Exception):  # noqa: N818 (it is the usual case)
    """A peer's package isn't here, or fails to import; the text says which and what installs it."""


def require(module: str, attribute: str | None = None) -> Any:
    """The peer's module (`attribute`: one below its package), or NotInstalled."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module if attribute is None else f"{module}.{attribute}")
    except Exception as error:  # also what a package of another age raises when it is imported
        if importlib.util.find_spec(package) is None:
            raise NotInstalled(f"{package}: pip install {' '.join(PACKAGES[package])}") from error
        raise NotInstalled(f"{package} is installed but does not import: {error}") from error


def torch_topk(pre_NL: torch.Tensor, k: int) -> Call:
    """torch.topk along rows into outputs that exist, sorted as ours is."""
    values = pre_NL.new_empty(pre_NL.shape[0], k)
    indices = torch.empty_like(values, dtype=torch.int64)
    return lambda: torch.topk(pre_NL, k, dim=1, out=(values, indices))


def torch_batchtopk(pre_NL: torch.Tensor, k: int) -> Call:
    """torch.topk of the flat tensor, unsorted, as dictionary-learning's BatchTopK has it."""
    count = pre_NL.shape[0] * k
    values, indices = pre_NL.new_empty(count), torch.empty(count, dtype=torch.int64, device=pre_NL.device)
    return lambda: torch.topk(pre_NL.flatten(), count, sorted=False, out=(values, indices))


def onnxruntime_topk(pre_NL: torch.Tensor, k: int) -> Call:
    """onnxruntime's TopK, its input and outputs bound to the tensors' own memory."""
    ort = require("onnxruntime")
    from_onnx = require("onnx", "helper") if importlib.util.find_spec("onnx") else None
    if from_onnx is None:
        raise NotInstalled("onnxruntime: pip install onnx")
    N, L = pre_NL.shape
    real, whole = 1, 7  # TensorProto.FLOAT, INT64
    graph = from_onnx.make_graph(
        [from_onnx.make_node("TopK", ["x", "k"], ["values", "indices"], axis=1, largest=1, sorted=1)],
        "topk",
        [from_onnx.make_tensor_value_info("x", real, [N, L])],
        [
            from_onnx.make_tensor_value_info("values", real, [N, k]),
            from_onnx.make_tensor_value_info("indices", whole, [N, k]),
        ],
        [from_onnx.make_tensor("k", whole, [1], [k])],
    )
    model = from_onnx.make_model(graph, opset_imports=[from_onnx.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would go on spinning into the next side's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    pre = pre_NL.contiguous()
    values, indices = torch.empty(N, k), torch.empty(N, k, dtype=torch.int64)
    import numpy as np

    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, list(pre.shape), pre.data_ptr())
    binding.bind_output("values", "cpu", 0, np.float32, [N, k], values.data_ptr())
    binding.bind_output("indices", "cpu", 0, np.int64, [N, k], indices.data_ptr())

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        session.run_with_iobinding(binding)
        return values, indices

    call.keeps = pre  # type: ignore[attr-defined] # the session holds its address alone
    return call


def faiss_heap(pre_NL: torch.Tensor, k: int) -> Call:
    """faiss's heap of the k largest of each row (float_minheap_array_t), then its sort."""
    faiss = require("faiss")
    faiss.omp_set_num_threads(torch.get_num_threads())
    pre = pre_NL.contiguous()
    N, L = pre.shape
    values, indices = torch.empty(N, k), torch.empty(N, k, dtype=torch.int64)
    rows, kept, places = pre.numpy(), values.numpy(), indices.numpy()

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        heap = faiss.float_minheap_array_t()
        heap.ids, heap.val = faiss.swig_ptr(places), faiss.swig_ptr(kept)
        heap.nh, heap.k = N, k
        heap.heapify()
        heap.addn(L, faiss.swig_ptr(rows))
        heap.reorder()
        return values, indices

    return call


def embedding_bag(acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LM: torch.Tensor) -> Call:
    """F.embedding_bag: the weighted sum of the chosen rows, [N, M]."""
    return lambda: F.embedding_bag(indices_NK, W_dec_LM, mode="sum", per_sample_weights=acts_NK)


def dense_decode(acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LM: torch.Tensor) -> Call:
    """The product of the dense acts [N, L], made beforehand, with W_dec."""
    dense = acts_NK.new_zeros(acts_NK.shape[0], W_dec_LM.shape[0]).scatter_(1, indices_NK, acts_NK)
    return lambda: dense @ W_dec_LM


def sparsify_decode(acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LM: torch.Tensor) -> Call:
    """sparsify's decoder: Triton on CUDA; on the CPU its eager one."""
    decode = _sparsify(W_dec_LM.device)
    return lambda: decode(indices_NK, acts_NK, W_dec_LM.mT)


def dense_backward(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LM: torch.Tensor, grad_NM: torch.Tensor
) -> Call:
    """Autograd of the dense product: d dense acts [N, L] and dW_dec [L, M]."""
    dense = acts_NK.new_zeros(acts_NK.shape[0], W_dec_LM.shape[0]).scatter_(1, indices_NK, acts_NK).requires_grad_()
    W_dec = W_dec_LM.detach().requires_grad_()
    out = dense @ W_dec
    return lambda: torch.autograd.grad(out, (dense, W_dec), grad_NM, retain_graph=True)


def sparsify_backward(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LM: torch.Tensor, grad_NM: torch.Tensor
) -> Call:
    """Autograd of sparsify's decoder: d acts [N, K] and dW_dec [L, M]."""
    acts, W_dec = acts_NK.detach().requires_grad_(), W_dec_LM.detach().requires_grad_()
    out = _sparsify(W_dec_LM.device)(indices_NK, acts, W_dec.mT)
    return lambda: torch.autograd.grad(out, (acts, W_dec), grad_NM, retain_graph=True)


def grid_sample(maps_GHWD: torch.Tensor, points_GP2: torch.Tensor) -> Call:
    """F.grid_sample on the maps as [G, D, H, W] (any strides), then the permutation to [P, G, D].

    It takes points in the dtype of the maps, and bfloat16 would put them some hundredths of a pixel off: so half
    precision goes through float32, as under autocast.
    """
    maps = maps_GHWD.permute(0, 3, 1, 2)
    side = points_GP2.new_tensor([maps.shape[3] - 1, maps.shape[2] - 1])
    wide = torch.promote_types(maps.dtype, torch.float32)
    grid = (points_GP2 / side * 2 - 1).unsqueeze(2).to(wide)

    def call() -> torch.Tensor:
        sampled = F.grid_sample(maps.to(wide), grid, align_corners=True)
        return sampled.squeeze(3).permute(2, 0, 1).to(maps.dtype).contiguous()

    return call


def _sparsify(device: torch.device) -> Any:
    if device.type == "cpu":
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # read when sparsify is imported
    return require("sparsify", "utils").decoder_impl
