"""Memory of the papers' recipes: parameters, state and activations of an image.

    python benchmarks/recipes.py            # all of configs/paper, ten minutes on two cores

The state is arithmetic. Activations are the tensors that autograd saves for the loss of a phase at full size,
counted while it is computed on the CPU, map by map as on a GPU. Writes recipes.json.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from saving import new_parser, publish
from torch import Tensor, nn

from flows.config import parse_experiment
from flows.data.base import Batch
from flows.display.results import Made, Result, Shown
from flows.errors import UserError
from flows.memory import MemoryMode, set_memory
from flows.storage.configs import config_names
from flows.training.phase import Phase

STATE = 20
"""Bytes per parameter: parameter, gradient, two moments of Adam and the average, in fp32."""
IMAGES = 2
"""Images for which activations are counted; batch norms need two."""
RANKS = 8
GB = 1e9
MODES: tuple[MemoryMode, ...] = ("plain", "reversible")
TEXT = (
    "State: 20 bytes per parameter (parameter, gradient, two moments of Adam, average, in fp32). Per image: "
    "what autograd saves in the phase that saves most, plain and with `training.memory: reversible`. A rank "
    "of eight holds the state and its share of the batch, which `training.accumulate` divides. Workspaces of "
    "kernels come on top."
)


def saved_bytes(loss: Callable[[], Tensor], known: set[int]) -> int:
    """Bytes of the distinct tensors that autograd saves for a loss.

    Args:
        loss: Function that computes it.
        known: Addresses of storages that do not count: parameters and buffers.
    """
    found: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        value = loss()  # alive while the bytes are added, so that no address is used twice
    total = sum(found.values())
    del value
    return total


@contextmanager
def map_by_map(model: nn.Module) -> Iterator[None]:
    """Context in which no maps run as one on the CPU, because each has a hook, which does nothing."""
    handles = [module.register_forward_hook(lambda *_: None) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def loss_of(phase: Phase, batch: Batch) -> Tensor:
    """Loss of a phase in the first step."""
    return phase.loss(batch, torch.Generator().manual_seed(0), 1)[0]


def measure(name: str) -> dict[str, Any]:
    """Parameters of a config's model, and the bytes that each phase saves per image in each memory mode."""
    parser, settings = parse_experiment(["--config", name, "--folder", "never-written"])
    experiment = parser.instantiate(settings)
    model, objective = experiment.model.train(), experiment.objective
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(model.bins, (IMAGES, *model.image_shape), generator=generator)
    pixels = (images * (256 // model.bins)).to(torch.uint8)
    batch = Batch(pixels, torch.zeros(IMAGES, dtype=torch.long), torch.arange(IMAGES))
    known = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    phases = objective.phases(model, objective.parts(model))

    def per_image() -> dict[str, int]:
        return {each.name: saved_bytes(partial(loss_of, each, batch), known) // IMAGES for each in phases}

    saved: dict[str, Any] = {}
    with map_by_map(model):
        saved["plain"] = per_image()
    try:
        set_memory(model, "reversible")
    except UserError as error:  # the model has no chain, or batch norms
        saved["reversible"] = str(error)
    else:
        saved["reversible"] = per_image()
    row = {
        "config": name,
        "image_shape": list(model.image_shape),
        "batch": experiment.training.batch,
        "parameters": sum(each.numel() for each in model.parameters()),
        "saved": saved,
    }
    print(row, flush=True)
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """Row of the table."""
    state, share = STATE * row["parameters"] / GB, -(-row["batch"] // RANKS)
    saved = [row["saved"][mode] for mode in MODES]
    images = [max(each.values()) / GB if isinstance(each, dict) else None for each in saved]
    return [
        row["config"].removeprefix("paper/"),
        "×".join(map(str, row["image_shape"][::-1])),
        f"{row['parameters'] / 1e6:.1f} M",
        f"{state:.2f}",
        *("–" if each is None else f"{each:.3f}" for each in images),
        str(row["batch"]),
        *("–" if each is None else f"{state + share * each:.1f}" for each in images),
    ]


def result(data: dict[str, Any], made: Made) -> Result:
    """Result of the figures."""
    columns = [
        "recipe",
        "images",
        "parameters",
        "state, GB",
        "an image, GB",
        "an image, reversible, GB",
        "batch",
    ]
    columns += [f"one of {RANKS} ranks, GB", "reversible, GB"]
    table = Shown(columns, [cells(row) for row in data["rows"]])
    return Result("Memory of the papers' recipes", made, {"table": table}, TEXT, data=data)


def main() -> None:
    """Count all recipes, write recipes.json and print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--configs", nargs="+", help="names of configs; by default all of paper/")
    given = parser.parse_args()
    names = given.configs or [name for name in config_names() if Path(name).parent.name == "paper"]
    publish(given, "recipes", result, lambda: {"rows": [measure(name) for name in names]})


if __name__ == "__main__":
    main()
