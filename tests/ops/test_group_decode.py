"""group_decode_loss and group_encode_at: the reference against the definition, the kernels against the reference."""

import pytest
import torch

import groupcc
from groupcc import ops
from helpers.backends import COMPILED, running
from helpers.decode_cases import DTYPES, no_worse, results
from helpers.group_decode_cases import sample

# Group, N, K, L, D: none, one, every latent in several poses, columns that fill no vector or more than one range, more
# examples than a core's cache holds, more latents than it.
SHAPES = [
    ("C1", 0, 3, 4, 2),
    ("C1", 1, 1, 1, 1),
    ("C3", 5, 7, 2, 5),
    ("D1", 4, 2, 9, 33),
    ("D3", 9, 6, 5, 17),
    ("D4", 70, 5, 12, 70),
    ("D5", 3, 9, 4, 131),
    ("C32", 40, 3, 7, 40),
    ("C32", 800, 2, 7, 20),
    ("C32", 70, 30, 19, 24),
]


def decode(group):
    return lambda acts, indices, poses, W, b, x: ops.group_decode_loss(acts, indices, poses, W, b, x, group)


def encode(group):
    def op(acts, indices, poses, W, b, x):
        return ops.group_encode_at(x, W, b.new_ones(len(W)) * b.sum(), indices, poses, group)

    return op


def by_definition(acts, indices, poses, W, b, x, group):
    """â by loops, and what each of its terms answers to x."""
    decoded, answers = b.expand_as(x).clone(), torch.zeros_like(acts)
    for n in range(len(acts)):
        for k in range(acts.shape[1]):
            for g in range(group.order):
                block = W[indices[n, k], group.cayley[g, poses[n, k]]]
                decoded[n, g] += acts[n, k] * block
                answers[n, k] += (block * x[n, g]).sum()
    return decoded, answers


@pytest.mark.parametrize("implementation", ["reference", *COMPILED])
@pytest.mark.parametrize("name", ["C3", "D3", "D4"])
def test_definitions(implementation, name):
    group = groupcc.group(name)
    args = sample((name, 3, 4, 2, 5))
    decoded, answers = by_definition(*args, group)
    x = args[-1]
    with running(implementation, "group_decode_loss"):
        loss, residual = decode(group)(*args)
    torch.testing.assert_close(residual, decoded - x)
    torch.testing.assert_close(loss, (decoded - x).square().sum())
    with running(implementation, "group_encode_at"):
        acts = ops.group_encode_at(x, args[3], torch.tensor([0.5, -1.0]).double(), args[1], args[2], group)
    torch.testing.assert_close(acts, torch.relu(answers + torch.tensor([0.5, -1.0]).double()[args[1]]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("implementation", COMPILED)
def test_kernels_are_as_exact_as_pytorch(implementation, shape, dtype):
    """Values and gradients, from the loss alone, from the residual, and from both."""
    group = groupcc.group(shape[0])
    args = sample(shape, dtype)
    wide = [t.double() if t.is_floating_point() else t for t in args]
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(args[-1].shape, generator=generator)
    for weights in ((torch.tensor(0.7), None), (None, weight), (torch.tensor(-1.3), weight)):
        with ops.use_backend("reference"):
            exact, same = results(decode(group), wide, weights), results(decode(group), args, weights)
        with running(implementation, "group_decode_loss"):
            no_worse(results(decode(group), args, weights), same, exact, dtype)
    weights = (torch.randn(args[0].shape, generator=generator),)
    # Where rounding decides what is active the two need not agree.
    with ops.use_backend("reference"):
        clear = (encode_pre(wide, group).abs() > 0.3).to(weights[0])
        exact, same = (results(encode_used(group), t, (weights[0] * clear,)) for t in (wide, args))
    with running(implementation, "group_encode_at"):
        no_worse(results(encode_used(group), args, (weights[0] * clear,)), same, exact, dtype)


@pytest.mark.parametrize(("dtype", "N"), [(torch.float32, 2100), (torch.float64, 1050)])
@pytest.mark.parametrize("implementation", COMPILED)
def test_an_output_that_goes_past_the_cache(implementation, dtype, N):
    """16 MiB or more, in whole lines of the cache and not."""
    group = groupcc.group("C2")
    for D in (1024, 1030):
        args = sample(("C2", N, 1, 40, D), dtype)
        wide = [t.double() if t.is_floating_point() else t for t in args]
        weights = (torch.tensor(0.7), None)
        with ops.use_backend("reference"):
            exact, same = (results(decode(group), t, weights) for t in (wide, args))
        with running(implementation, "group_decode_loss"):
            no_worse(results(decode(group), args, weights), same, exact, dtype)


def encode_pre(args, group):
    """Pre-activations of what is chosen."""
    _, indices, poses, W, b, x = args
    pre = ops.group_correlate(x, W, group) + b.sum()
    return pre.flatten(1).gather(1, indices * group.order + poses)


def encode_used(group):
    """`encode`, its first argument too, so that all have gradients."""
    op = encode(group)
    return lambda acts, *rest: op(acts, *rest) + 0 * acts


def test_on_triton():
    """By the kernels of other ops."""
    group, args = groupcc.group("D3"), sample(("D3", 3, 2, 2, 4), torch.float32)
    weights = (torch.tensor(1.0), None), (torch.ones(3, 2),)
    cases = [("decode_loss", decode(group), weights[0]), ("group_correlate", encode_used(group), weights[1])]
    for kernels, op, weight in cases:
        with running("triton", kernels) as device:
            found = results(op, [t.to(device) for t in args], [w if w is None else w.to(device) for w in weight])
        with ops.use_backend("reference"):
            for one, other in zip(found, results(op, args, weight), strict=True):
                torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("implementation", ["reference", *COMPILED[-1:]])
@pytest.mark.parametrize("name", ["C2", "D3"])
def test_gradcheck(implementation, name):
    group = groupcc.group(name)
    acts, indices, poses, W, b, x = sample((name, 3, 3, 2, 4))
    leaves = [t.requires_grad_() for t in (acts, W, b, x)]
    with running(implementation, "group_decode_loss"):
        assert torch.autograd.gradcheck(lambda acts, W, b, x: decode(group)(acts, indices, poses, W, b, x), leaves)
    b_enc = torch.tensor([0.4, -0.2], dtype=torch.float64).requires_grad_()
    with running(implementation, "group_encode_at"):
        assert torch.autograd.gradcheck(
            lambda x, W, b: ops.group_encode_at(x, W, b, indices, poses, group), (leaves[3], leaves[1], b_enc)
        )


@pytest.mark.parametrize("implementation", ["reference", *COMPILED])
def test_known_acts_have_the_same_gradients(implementation):
    """What is known to be 0 stays 0 and gets none, whatever the pre-activation there."""
    group = groupcc.group("D4")
    _, indices, poses, W, _, x = sample(("D4", 9, 6, 5, 7), torch.float32)
    b = torch.randn(5, generator=torch.Generator().manual_seed(3))
    leaves = [t.requires_grad_() for t in (x, W, b)]
    with running(implementation, "group_encode_at"):
        acts = ops.group_encode_at(*leaves, indices, poses, group)
        mask = torch.ones_like(acts)
        mask[:, ::2] = 0
        assert bool((acts[:, ::2] > 0).any())
        expected = torch.autograd.grad((acts * mask).square().sum(), leaves)
        known = ops.group_encode_at(*leaves, indices, poses, group, known=(acts * mask).detach())
        found = torch.autograd.grad(known.square().sum(), leaves)
    torch.testing.assert_close(known, acts * mask)
    for got, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.skipif(not COMPILED, reason="no extension")
def test_the_same_for_any_threads():
    group, before = groupcc.group("D4"), torch.get_num_threads()
    weights = (torch.tensor(1.0), None)
    for shape in (("D4", 70, 5, 12, 33), ("D4", 3, 2, 1, 200)):
        args = sample((shape[0], *shape[1:]), torch.float32)
        found = []
        try:
            for threads in (1, 2, 3, 7):
                torch.set_num_threads(threads)
                with ops.use_backend("cpp"):
                    found.append(
                        results(decode(group), args, weights)
                        + results(encode_used(group), args, (torch.ones_like(args[0]),))
                    )
        finally:
            torch.set_num_threads(before)
        for others in found[1:]:
            assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


@pytest.mark.skipif(not COMPILED, reason="no extension")
@pytest.mark.parametrize("strided", [False, True])
def test_opcheck(strided):
    acts, indices, poses, W, b, x = sample(("D3", 4, 3, 5, 6), torch.float32)
    if strided:
        acts, indices, poses, W, x = (with_other_strides(t) for t in (acts, indices, poses, W, x))
    leaves = [t.requires_grad_() for t in (acts, W, b, x)]
    library = torch.ops.groupcc
    for needs in ((False, False), (True, False), (True, True)):
        arguments = (leaves[0], indices, poses, leaves[1], leaves[2], leaves[3], "D3", *needs, "cpp")
        torch.library.opcheck(library.group_decode_loss.default, arguments)
    acts, W, b, x = (t.detach() for t in leaves)
    for scale, need in ((None, False), (torch.tensor(2.0), True)):
        for known in ((None, None), (torch.ones(4, 3), torch.ones(6))):
            arguments = (x, scale, acts, indices, poses, W, *known, need, need, "D3", "cpp")
            torch.library.opcheck(library.group_decode_backward.default, arguments)
    known = torch.relu(acts)
    for given in (None, known):
        arguments = (leaves[3], leaves[1], W[:, 0, 0].clone().requires_grad_(), indices, poses, given, "D3", "cpp")
        torch.library.opcheck(library.group_encode_at.default, arguments)
    torch.library.opcheck(library.group_encode_at_backward.default, (known, x, indices, poses, 5, "D3", "cpp"))


@pytest.mark.parametrize("implementation", COMPILED)
def test_an_act_of_0_adds_nothing(implementation):
    """Whatever stands in W_dec, or in the example that its gradient would read."""
    group = groupcc.group("D3")
    acts, indices, poses, W, b, x = sample(("D3", 7, 3, 5, 6), torch.float32)
    acts, indices = torch.where(indices == 2, 0, acts.abs() + 1), torch.where(indices == 4, 3, indices)
    acts[1], indices[1] = 0, 4  # the one example that latent 4 is in
    W[2], x[1] = float("nan"), float("inf")
    W.requires_grad_()
    with running(implementation, "group_decode_loss"):
        loss, residual = ops.group_decode_loss(acts, indices, poses, W, b, x, group)
        (d_W,) = torch.autograd.grad(loss, W)
    assert bool(residual[[n for n in range(7) if n != 1]].isfinite().all())
    assert bool(d_W.isfinite().all())


def with_other_strides(t):
    return t.transpose(0, -1).contiguous().transpose(0, -1)


@pytest.mark.parametrize("implementation", ["reference", *COMPILED])
def test_any_strides(implementation):
    group, args = groupcc.group("D4"), sample(("D4", 9, 6, 5, 19), torch.float32)
    known = torch.relu(args[0])
    strided, known_strided = [with_other_strides(t) for t in args], with_other_strides(known)
    weights = (torch.tensor(1.0), torch.randn(args[-1].shape, generator=torch.Generator().manual_seed(2)))
    with running(implementation, "group_decode_loss"):
        pairs = [*zip(*(results(decode(group), t, weights) for t in (args, strided)), strict=True)]
    weights = (torch.randn(args[0].shape, generator=torch.Generator().manual_seed(2)),)
    with running(implementation, "group_encode_at"):
        pairs += zip(*(results(encode_used(group), t, weights) for t in (args, strided)), strict=True)
        b = torch.zeros(len(args[3]))
        pairs += [
            tuple(
                ops.group_encode_at(t[5], t[3], b, t[1], t[2], group, known=k)
                for t, k in ((args, known), (strided, known_strided))
            )
        ]
    for one, other in pairs:
        assert torch.equal(one, other)


@pytest.mark.parametrize("implementation", ["reference", *COMPILED[-1:]])
def test_each_gradient_alone(implementation):
    """What is asked for does not depend on what else is."""
    group = groupcc.group("D3")
    acts, indices, poses, W, b, x = sample(("D3", 7, 3, 5, 6), torch.float32)
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))

    def loss_alone(acts, W, b, x):
        return ops.group_decode_loss(acts, indices, poses, W, b, x, group)[0] * 0.7

    def both(acts, W, b, x):
        loss, residual = ops.group_decode_loss(acts, indices, poses, W, b, x, group)
        return 0.7 * loss + (residual * weight).sum()

    def residual_alone(acts, W, b, x):
        return (ops.group_decode_loss(acts, indices, poses, W, b, x, group)[1] * weight).sum()

    def encoded(x, W, b):
        return ops.group_encode_at(x, W, b, indices, poses, group).square().sum()

    for op, function, given in (
        *(("group_decode_loss", function, (acts, W, b, x)) for function in (loss_alone, both, residual_alone)),
        ("group_encode_at", encoded, (x, W, torch.ones(5))),
    ):
        with running(implementation, op):
            leaves = [t.clone().requires_grad_() for t in given]
            together = torch.autograd.grad(function(*leaves), leaves)
            for i, wanted in enumerate(together):
                alone = [t.clone().requires_grad_(j == i) for j, t in enumerate(given)]
                torch.testing.assert_close(torch.autograd.grad(function(*alone), alone[i])[0], wanted)


@pytest.mark.skipif(not COMPILED, reason="no extension")
@pytest.mark.parametrize("needed", [(), ("acts",), ("b",), ("acts", "W", "b")])
def test_the_forward_pass_forms_only_gradients_that_are_needed(needed, monkeypatch):
    from groupcc.ops.group_decode_loss import cpp

    group, formed, again = groupcc.group("D3"), [], []
    forward, dots = cpp.forward, cpp.dots
    monkeypatch.setattr(cpp, "forward", lambda *args: formed.append(forward(*args)) or formed[-1])
    monkeypatch.setattr(cpp, "dots", lambda *args: again.append(args) or dots(*args))
    acts, indices, poses, W, b, x = sample(("D3", 7, 3, 5, 6), torch.float32)
    leaves = {name: t for name, t in (("acts", acts), ("W", W), ("b", b)) if name in needed}
    for leaf in leaves.values():
        leaf.requires_grad_()
    with ops.use_backend("cpp"):
        loss, _ = ops.group_decode_loss(acts, indices, poses, W, b, x, group)
        if leaves:
            torch.autograd.grad(loss, list(leaves.values()))
        with torch.no_grad():
            ops.group_decode_loss(acts, indices, poses, W, b, x, group)
    (_, _, answers, column_sums), (*_, no_answers, no_sums) = formed
    assert (answers.numel(), column_sums.numel()) == (21 if "acts" in needed else 0, 6 if "b" in needed else 0)
    assert (no_answers.numel(), no_sums.numel()) == (0, 0)
    assert not again


@pytest.mark.skipif(not COMPILED, reason="no extension")
def test_gradients_of_gradients_are_an_error():
    group = groupcc.group("D3")
    acts, indices, poses, W, b, x = sample(("D3", 7, 3, 5, 6), torch.float32)
    acts.requires_grad_()
    W.requires_grad_()
    with ops.use_backend("cpp"):
        loss, _ = ops.group_decode_loss(acts, indices, poses, W, b, x, group)
        act_sum = ops.group_encode_at(x, W, b.new_ones(5), indices, poses, group).sum()
    for out in (loss, act_sum.square()):
        (first,) = torch.autograd.grad(out, W, create_graph=True)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            first.sum().backward()


@pytest.mark.skipif(not COMPILED, reason="no extension")
@pytest.mark.parametrize(("N", "K", "L", "D"), [(0, 3, 0, 5), (4, 0, 0, 5), (4, 0, 5, 5), (4, 3, 5, 0), (0, 3, 5, 0)])
def test_nothing_there(N, K, L, D):
    group = groupcc.group("D3")
    acts, W, b, x = (torch.ones(*shape, requires_grad=True) for shape in ((N, K), (L, 6, D), (1, D), (N, 6, D)))
    indices = torch.zeros(N, K, dtype=torch.int64)
    with ops.use_backend("cpp"):
        loss, residual = ops.group_decode_loss(acts, indices, indices, W, b, x, group)
        loss.backward()
        b_enc = torch.ones(L, requires_grad=True)
        encoded = ops.group_encode_at(x, W, b_enc, indices, indices, group)
        encoded.sum().backward()
    assert torch.equal(residual, torch.zeros(N, 6, D))  # the bias, 1, less 1: there are no columns where there are acts
    assert float(loss.detach()) == 0
    assert torch.equal(encoded, torch.ones(N, K))
    assert not acts.grad.any()
    assert not W.grad.any()
    assert float(b_enc.grad.sum()) == N * K


@pytest.mark.skipif(not COMPILED, reason="no extension")
def test_torch_compile():
    torch._dynamo.reset()
    group = groupcc.group("D3")
    acts, indices, poses, W, b, x = (with_other_strides(t) for t in sample(("D3", 7, 3, 5, 6), torch.float32))

    def step(W):
        encoded = ops.group_encode_at(x, W, W[:, 0, 0], indices, poses, group, known=torch.relu(acts))
        return ops.group_decode_loss(encoded, indices, poses, W, b, x, group)[0]

    leaf, compiled = W.clone().requires_grad_(), W.clone().requires_grad_()
    step(leaf).backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, leaf.grad)


def test_auto_goes_by_cost(caplog):
    """Many chosen poses for each base latent: through all pre-activations; few: to the chosen alone."""
    pytest.importorskip("groupcc._C")
    group = groupcc.group("D4")
    x, W = torch.randn(3, 8, 5), torch.randn(4, 8, 5)
    with ops.use_backend("auto"):
        assert ops.sparse_gradient_pays(x, W, 2, group)
        assert not ops.sparse_gradient_pays(x, W, 20, group)
    for backend in ("reference", "triton"):
        with ops.use_backend(backend):
            assert not ops.sparse_gradient_pays(x, W, 2, group)
