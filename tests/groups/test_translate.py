"""R_h: one table, one function, by one element or by one for each example."""

import pytest
import torch

import groupcc
from groupcc.groups.translate import translate, translates, translation_table


def test_c3_by_hand():
    blocks = torch.tensor([[5.0], [6.0], [7.0]])
    assert translate(blocks, groupcc.group("C3"), 1).flatten().tolist() == [6, 7, 5]
    assert translates(blocks, groupcc.group("C3"))[2].flatten().tolist() == [7, 5, 6]


@pytest.mark.parametrize("name", ["C5", "D4", "D3"])
def test_it_is_a_gather_by_gh_and_composes(name):
    G = groupcc.group(name)
    blocks = torch.randn(4, G.order, 2, generator=torch.Generator().manual_seed(0))
    every = translates(blocks, G)
    assert every.shape == (4, G.order, G.order, 2)
    for h in range(G.order):
        moved = translate(blocks, G, h)
        assert torch.equal(moved, every[:, h])
        for g in range(G.order):
            assert torch.equal(moved[:, g], blocks[:, G.cayley[g, h]])
            assert torch.equal(translate(moved, G, g), translate(blocks, G, int(G.cayley[g, h])))


def test_an_element_for_each_example():
    G = groupcc.group("D4")
    blocks = torch.randn(3, 2, 8, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    h = torch.tensor([[0, 5], [3, 7], [7, 1]])
    moved = translate(blocks, G, h)
    for i in range(3):
        for j in range(2):
            assert torch.equal(moved[i, j], translate(blocks[i, j], G, int(h[i, j])))
    (moved * moved.detach()).sum().backward()
    assert torch.equal(blocks.grad, blocks.detach())


def test_the_table_is_the_groups():
    G = groupcc.group("D5")
    assert translation_table(G).tolist() == G.cayley.T.tolist()
