"""The private names of torch that the package uses: all in one file, and doing what it says."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

from flows.core import torch_internals

ROOT = Path(__file__).parents[2] / "flows"
PRIVATE = re.compile(r"^_[a-z]\w*$|^_[A-Z]\w*$")
OF_TORCH = {
    "_C", "_are_functorch_transforms_active", "_current_level", "_forward_hooks", "_forward_pre_hooks",
    "_backward_hooks", "_backward_pre_hooks", "_modules", "_DropoutNd", "_NormBase",
}  # fmt: skip


def private_attributes(path: Path) -> set[str]:
    """Private attributes of anything but self and cls that a file reads."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and PRIVATE.match(node.attr)
        and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    }


def private_imports(path: Path) -> set[str]:
    """Private names and modules of torch that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            found |= {part for part in parts if part.startswith("_")}
    return found


def test_private_names_of_torch_are_used_in_one_file():
    assert private_imports(ROOT / "core" / "torch_internals.py") == {"_BatchNorm", "_python_dispatch"}
    assert private_attributes(ROOT / "core" / "torch_internals.py") == OF_TORCH
    for path in ROOT.rglob("*.py"):
        if path.name != "torch_internals.py":
            used = private_attributes(path) & OF_TORCH | private_imports(path)
            assert not used and "ops.aten" not in path.read_text(), f"{path.name}: {used}"


def test_transforms_and_forward_mode_are_seen():
    assert not torch_internals.transforms_are_active() and not torch_internals.forward_mode_is_active()
    seen = []
    torch.func.vmap(lambda x: seen.append(torch_internals.transforms_are_active()) or x)(torch.zeros(2))
    with torch.autograd.forward_ad.dual_level():
        seen.append(torch_internals.forward_mode_is_active())
    assert seen == [True, True]


def test_hooks_of_every_kind_are_seen():
    for register in (
        "register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
        "register_full_backward_pre_hook",
    ):  # fmt: skip
        layer = nn.Linear(2, 2)
        assert not torch_internals.any_hooked([layer])
        handle = getattr(layer, register)(lambda *_: None)
        assert torch_internals.any_hooked([layer])
        handle.remove()
        assert not torch_internals.any_hooked([layer])


def test_layers_are_recognised():
    assert torch_internals.is_random(nn.Dropout2d(0.5)) and not torch_internals.is_random(nn.Dropout(0.0))
    assert torch_internals.tracks_statistics(nn.BatchNorm2d(2))
    assert not torch_internals.tracks_statistics(nn.BatchNorm2d(2, track_running_stats=False))
    assert not torch_internals.tracks_statistics(nn.LayerNorm(2))
    model = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh()))
    assert torch_internals.children(model) == list(model.children())


def test_gradients_are_autograds():
    x = torch.linspace(-2, 2, 9, requires_grad=True)
    grad = torch.linspace(1, 3, 9)
    (expected,) = torch.autograd.grad(x.clamp(-1, 1), x, grad)
    assert torch.equal(torch_internals.hardtanh_backward(grad, x.detach(), -1, 1), expected)
    (expected,) = torch.autograd.grad(torch.relu(x), x, grad)
    found = grad.clone()
    torch_internals.through_relu(found, torch.relu(x).detach())
    assert torch.equal(found, expected)


def test_a_model_is_loaded_where_no_gradients_are():
    """The first import of the package may stand in `inference_mode` or below another device."""
    for context in ("torch.inference_mode()", "torch.no_grad()", "torch.device('meta')"):
        code = (
            f"import flows, torch\nwith {context}:\n    from flows.core.torch_internals import passes_borders"
        )
        code += "\n    passes_borders()"
        code += "\n    print(flows.load('digits-glow').bins)" if "meta" not in context else "\n    print(17)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout == "17\n", done.stderr
