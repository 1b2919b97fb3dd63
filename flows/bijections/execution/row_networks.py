"""Interface and preparation of coupling networks that are computed on rows of pixels."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol, cast

from torch import Tensor

from flows.bijections.coupling import Coupling
from flows.core.workspace import Workspace

Parameters = Sequence[Tensor | None]
TOGETHER = 8
"""Number of networks whose weights are prepared together: few calls, and a bounded copy of weights."""


class RowNetworks(Protocol):
    """Interface of n networks, from rows (P, inputs) to rows (P, outputs), e.g. `glow_rows.GlowRows`."""

    def run(self, i: int, kept: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Compute the output of network i, in its own memory, and the activations for `pull_back`.

        With `keep`, the activations have their own memory too, and None replaces those that are cheap to
        recompute.
        """

    def pull_back(self, i: int, grad: Tensor, kept: Tensor, activations: tuple[Tensor | None, ...]) -> Tensor:
        """Compute the gradient of `kept` from that of the output."""

    def gradients(self, into: Parameters) -> None:
        """Write the parameters' gradients, stacked over the n networks, after all calls of `pull_back`."""


class RowNetwork(Protocol):
    """Interface of a coupling's network that can be computed in rows, e.g. `networks.glow.GlowNetwork`."""

    def row_kind(self) -> Hashable | None: ...
    def row_parameters(self) -> Parameters: ...
    def row_networks(self, parameters: Sequence[Parameters], workspace: Workspace) -> RowNetworks: ...


def network_of(coupling: Coupling) -> RowNetwork:
    """Network of a coupling, as a `RowNetwork`."""
    return cast(RowNetwork, coupling.network)


def networks_from(
    couplings: Sequence[Coupling], first: int, parameters: Parameters, workspace: Workspace
) -> RowNetworks:
    """Prepare the networks of `TOGETHER` couplings, from number `first` on."""
    count = len(parameters) // len(couplings)
    last = min(first + TOGETHER, len(couplings))
    chosen = [parameters[i * count : (i + 1) * count] for i in range(first, last)]
    return network_of(couplings[first]).row_networks(chosen, workspace)


def walk(
    couplings: Sequence[Coupling], parameters: Parameters, workspace: Workspace
) -> Iterator[tuple[Coupling, RowNetworks, int]]:
    """Iterate over (coupling, prepared networks, index of the coupling's network among them)."""
    networks = None
    for i, coupling in enumerate(couplings):
        if networks is None or i % TOGETHER == 0:
            networks = networks_from(couplings, i, parameters, workspace)
        yield coupling, networks, i % TOGETHER
