"""Small arguments for every public op, and its results with their gradients."""

import torch

from groupcc import group, ops

OF_OP = {name: name for name in ops.registered_ops()}
OF_OP |= {"decode_loss_maps": "decode_loss", "orbit_correlate_max": "orbit_correlate"}
"""Every public op function, and the op that it is an entry to."""


def inputs(name, device="cpu"):
    """Arguments in float32, few enough latents that the decoders' reference is a dense product."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    points, turned = (torch.rand(elements, 4, 2, generator=generator) * 2 + 1 for elements in (3, 8))
    decoded = normal(8, 2), torch.randint(8, (8, 2), generator=generator), normal(8, 3, 5), normal(3, 5)
    posed = normal(5, 2), *(torch.randint(size, (5, 2), generator=generator) for size in (3, 8))
    arguments = {
        "topk": (normal(8, 40), 3),
        "batchtopk": (normal(8, 40), 3),
        "encode_topk": (normal(8, 15), normal(15, 40), normal(40), 3),
        "sparse_decode": decoded,
        "decode_loss": (*decoded, normal(8, 3, 5)),
        "decode_loss_maps": (*decoded, normal(2, 3, 5, 5, 5), points),
        "orbit_gather": (normal(2, 3, 5, 5, 5), points),
        "group_correlate": (normal(5, 8, 6), normal(3, 8, 6), group("D4")),
        "group_correlate_max": (normal(5, 8, 6), normal(3, 8, 6), normal(3), group("D4")),
        "group_decode_loss": (*posed, normal(3, 8, 6), normal(1, 6), normal(5, 8, 6), group("D4")),
        "group_encode_at": (normal(5, 8, 6), normal(3, 8, 6), normal(3), *posed[1:], group("D4")),
        "pose_maxima": (normal(5, 3, 8), torch.eye(8, dtype=torch.bool)[:3], group("D4"), 4),
        "orbit_correlate": (normal(2, 8, 5, 5, 5), turned, normal(3, 8, 5), group("D4")),
        "orbit_correlate_max": (normal(2, 8, 5, 5, 5), turned, normal(3, 8, 5), normal(3), group("D4")),
        "orbit_encode": (normal(2, 3, 5, 5, 5), points, normal(3, 5, 40), normal(40)),
    }[name]
    return [x.to(device) if torch.is_tensor(x) else x for x in arguments]


def outputs_and_gradients(op, args):
    """What `op` returns, and the gradients of the sum of its squares to its floating arguments."""
    leaves = [x.detach().requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in args]
    results = op(*leaves)
    results = results if isinstance(results, tuple) else (results,)
    wanted = [x for x in leaves if torch.is_tensor(x) and x.requires_grad]
    total = sum(x.square().sum() for x in results if x.requires_grad)
    if not torch.is_tensor(total):  # a selection
        return list(results)
    return [*results, *(g for g in torch.autograd.grad(total, wanted, allow_unused=True) if g is not None)]
