"""Parameters and optimizer state in the order in which they lie in memory."""

import pytest
import torch

from groupcc.training import checkpoint
from groupcc.training.memory_order import from_memory_order, in_memory_order
from helpers.training_samples import make


@pytest.mark.parametrize("axes", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 1, 5), (1, 4, 1), (1, 1, 1)])
def test_there_and_back(axes, shape):
    like = torch.arange(float(torch.Size(shape).numel())).view(shape).permute(axes)
    seen = in_memory_order(like, like)
    assert seen.is_contiguous()
    assert seen.flatten().tolist() == sorted(seen.flatten().tolist())
    assert seen.data_ptr() == like.data_ptr()
    assert torch.equal(from_memory_order(seen, like), like)


def test_checkpoints_hold_the_optimizers_state_in_the_parameters_shapes(tmp_path):
    crosscoder = make()

    def adam():
        held = [in_memory_order(p.detach(), p).requires_grad_() for p in crosscoder.parameters()]
        return torch.optim.Adam(held, fused=True)

    optimizer = adam()
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    state = {"step": 1, "scale": 1.0, "settings": {"crosscoder": crosscoder.config.to_dict()}}
    checkpoint.write(tmp_path, crosscoder, optimizer, state, keep=1)
    found = checkpoint.newest(tmp_path)
    for name, parameter in crosscoder.named_parameters():
        assert found.optimizer[f"exp_avg.{name}"].shape == parameter.shape
    restored = adam()
    checkpoint.restore(found, crosscoder, restored)
    pairs = zip(*(o.param_groups[0]["params"] for o in (optimizer, restored)), strict=True)
    for before, after in pairs:
        for slot, value in optimizer.state[before].items():
            assert torch.equal(restored.state[after][slot], value)
            assert restored.state[after][slot].stride() == value.stride()
