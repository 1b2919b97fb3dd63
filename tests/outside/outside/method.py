"""Axes: single coordinates of the code as directions."""

from dataclasses import dataclass

import torch

from flows.steering import Direction, Method, Task


@dataclass
class Axes(Method):
    """The first coordinates of the code.

    Args:
        axes: Number of coordinates.
    """

    axes: int = 3

    def find(self, task: Task) -> list[Direction]:
        values = task.codes(task.n).values.cpu()
        return [
            Direction(
                name=f"axis{i}",
                vector=torch.eye(values.shape[1])[i],
                bias=-float(values[:, i].mean()),
                space=task.space,
                sigma=float(values[:, i].std()),
                method="axes",
                fingerprint=task.model.fingerprint(),
            )
            for i in range(self.axes)
        ]
