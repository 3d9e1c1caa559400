"""The extension's functions refuse tensors of another shape, type, order or device, and name the argument.

The table in groupcc/ops/README.md says which of them each op calls, and where its kernels are.
"""

import ast
import gc
import re
import sys
import weakref
from pathlib import Path

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.ops.memory import take_scaled
from helpers.op_cases import OF_OP, inputs, outputs_and_gradients

_C = pytest.importorskip("groupcc._C")
STUB = ast.parse(Path(groupcc.__file__).with_name("_C.pyi").read_text(encoding="utf-8"))
ANY_STRIDES = {("pose_maxima", "z")}
# How many latents there are is known from these alone.
ANY_SIZE = {("topk", "pre_acts"), ("BatchTopk.__init__", "pre_acts")}
# The number of elements counts, in whatever shape.
FLAT = {("group_correlate_transform", "x"), ("group_correlate_transform", "out"), ("group_correlate_max", "W")}


def arguments(function):
    return [a.arg for a in function.args.args if a.arg != "self"]


FUNCTIONS = {
    node.name: arguments(node)
    for node in STUB.body
    if isinstance(node, ast.FunctionDef) and "threads" in arguments(node)
}
FUNCTIONS |= {
    f"{node.name}.{method.name}": arguments(method)
    for node in STUB.body
    if isinstance(node, ast.ClassDef) and node.name != "Block"
    for method in node.body
    if isinstance(method, ast.FunctionDef) and not method.decorator_list
}


class Recorder:
    """In place of groupcc._C: keeps, of each function that takes tensors, a call that ran, and which op called it."""

    def __init__(self):
        self.calls, self.of_op, self.op = {}, {}, None

    def __getattr__(self, name):
        real = getattr(_C, name)
        if isinstance(real, type):
            return lambda *args: Recorded(self, name, self.run(f"{name}.__init__", real, args))
        return (lambda *args: self.run(name, real, args)) if name in FUNCTIONS else real

    def run(self, name, real, args):
        args = [arg.made if isinstance(arg, Recorded) else arg for arg in args]
        result = real(*args)
        self.calls[name] = (real, args)
        self.of_op.setdefault(self.op, set()).add(name.split(".")[0])
        return result


class Recorded:
    """An object of one of the extension's classes, whose methods are recorded."""

    def __init__(self, recorder, name, made):
        self.recorder, self.name, self.made = recorder, name, made

    def __getattr__(self, name):
        real = getattr(self.made, name)
        return (lambda *args: self.recorder.run(f"{self.name}.{name}", real, args)) if callable(real) else real


@pytest.fixture(scope="module")
def recorder():
    from groupcc.ops._cpp import group_transform
    from groupcc.ops.encode_topk import cpp

    kept = (group_transform.folds_of, group_transform.elements, group_transform._coefficients)
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        for name, module in list(sys.modules.items()):
            if name.startswith("groupcc.ops.") and getattr(module, "_C", None) is _C:
                patch.setattr(module, "_C", recorder)
        with ops.use_backend("cpp"):
            for name in OF_OP:
                recorder.op = OF_OP[name]
                for function in kept:
                    function.cache_clear()
                outputs_and_gradients(getattr(ops, name), inputs(name))
            recorder.op = "group_correlate_max"
            for function in kept:
                function.cache_clear()
            with torch.no_grad():  # the kernel has no gradients
                ops.group_correlate_max(*inputs("group_correlate_max"))
            recorder.op = "encode_topk"
            patch.setattr(cpp, "pays", lambda *_: True)
            x, W, b, k = inputs("encode_topk")
            ops.encode_topk(x, W.t().contiguous().t(), b, k)
        recorder.op = None
        take_scaled(torch.randn(5, 2, 3), torch.tensor([1, 0]), 2.0)
        for function in kept:  # or what they keep would be of the recorder
            function.cache_clear()
    return recorder


@pytest.fixture
def calls(recorder):
    return recorder.calls


def test_every_function_is_called(calls):
    assert set(calls) == set(FUNCTIONS)


def wrong(tensor):
    """The tensor with another type, shape, order or device, each with its name."""
    yield "type", tensor.to(torch.int32 if tensor.is_floating_point() else torch.float32)
    yield "axes", tensor[None]
    yield "size", torch.cat([tensor, tensor[..., :1]], -1)
    yield "device", tensor.to("meta")
    if tensor.dim() > 1 and min(tensor.shape[-2:]) > 1:
        yield "order", tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif tensor.dim() == 1 and len(tensor) > 1:
        yield "order", torch.stack([tensor, tensor], 1)[:, 0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_tensors_are_refused(calls, name):
    function, given = calls[name]
    names = FUNCTIONS[name]
    named = rf"^({'|'.join(names)})(, \w+)*: expected "
    for i, tensor in enumerate(given):
        if not torch.is_tensor(tensor):
            continue
        for kind, other in wrong(tensor):
            if (name, names[i]) in {"order": ANY_STRIDES, "size": ANY_SIZE, "axes": FLAT}.get(kind, ()):
                continue
            print(names[i], kind)  # what is tried when it fails
            with pytest.raises(ValueError, match=named):
                function(*given[:i], other, *given[i + 1 :])
        with pytest.raises(TypeError, match="incompatible"):
            function(*given[:i], "a tensor", *given[i + 1 :])


def test_an_error_says_what_came():
    acts, indices, W_dec = torch.ones(3, 2), torch.zeros(3, 2, dtype=torch.int64), torch.ones(4, 1, 5)
    rest = W_dec, None, torch.empty(3, 1, 5), 1
    wanted = (
        r"^indices: expected int64 of shape \[3, 2\] on the CPU, contiguous; got float32 of shape \[3, 2\]\. Call it"
    )
    with pytest.raises(ValueError, match=wanted):
        _C.sparse_decode(acts, acts, *rest)
    with pytest.raises(ValueError, match=r"got int64 of shape \[3, 2\], not contiguous\. Call"):
        _C.sparse_decode(acts, indices.t().contiguous().t(), *rest)
    with pytest.raises(IndexError, match="indices: expected 0 to L - 1 = 3; got 4"):
        _C.sparse_decode(acts, indices + 4, *rest)
    _C.sparse_decode(acts, indices, *rest)
    assert rest[2].tolist() == [[[2.0] * 5]] * 3


def test_what_is_kept_keeps_its_tensors():
    pre_acts = torch.randn(3, 4)
    here = weakref.ref(pre_acts)
    chosen = _C.BatchTopk(pre_acts, 2, 1)
    del pre_acts
    gc.collect()
    assert here() is not None
    del chosen
    gc.collect()
    assert here() is None


OPS_FOLDER = Path(ops.__file__).parent
CSRC = OPS_FOLDER.parents[1] / "csrc"


def table():
    """The rows of groupcc/ops/README.md: op → its other cells, each a list of what stands in backticks."""
    lines = (OPS_FOLDER / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    return {first.strip("`"): cells for first, *cells in rows}


def quoted(cell):
    return re.findall(r"`(.+?)`", cell)


def bound_in():
    """Each function and class of the extension → the file in csrc/ that adds it."""
    pattern = re.compile(r'(?:\bm\.def\(|py(?:bind11)?::class_<[^>]*>\(m, )"(\w+)"')
    return {name: path.name for path in CSRC.glob("*.cpp") for name in pattern.findall(path.read_text("utf-8"))}


def kernel_files(path, seen):
    """Adds to `seen` a module in groupcc/ops and what it imports of _triton; true for those that build kernels."""
    if path in seen:
        return
    seen[path] = False
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        seen[path] |= isinstance(node, ast.FunctionDef) and node.name == "builds"
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("groupcc.ops._triton"):
            *folders, name = node.module.split(".")[2:]
            files = [name] if folders else [alias.name for alias in node.names]
            for file in files:
                kernel_files(OPS_FOLDER / "_triton" / f"{file}.py", seen)


def test_the_table_has_every_op():
    assert list(table()) == sorted(ops.registered_ops())


@pytest.mark.parametrize("name", sorted(ops.registered_ops()))
def test_the_table_names_files_and_bindings(name, recorder):
    op, (folder, files, bindings, kernels, reference) = ops.registered_ops()[name], table()[name]
    assert quoted(folder) == [f"{name}/"]
    assert quoted(reference) == [f"{name}/reference.py"]
    assert all((OPS_FOLDER / path).exists() for path in quoted(folder) + quoted(reference))
    own = recorder.of_op.get(name, set())
    if "cpp" in op.backends:
        where = bound_in()
        assert quoted(bindings) == sorted(own)
        assert quoted(files) == sorted({where[binding] for binding in own})
    else:
        assert (files, bindings) == (by(op.composed["cpp"]), "")
    if "triton" in op.backends:
        seen = {}
        kernel_files(OPS_FOLDER / name / "triton.py", seen)
        found = sorted(path.relative_to(OPS_FOLDER).as_posix() for path, has in seen.items() if has)
        assert quoted(kernels) == found
    else:
        assert kernels == by(op.composed["triton"])


def by(parts):
    return f"by {', '.join(parts)}"
