"""Coupling networks on pixels as rows: what `bijections.rows` asks of them, and how they are made ready."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol, cast

from torch import Tensor

from flows.bijections.coupling import AdditiveCoupling, AffineCoupling
from flows.workspace import Workspace

Coupling = AdditiveCoupling | AffineCoupling
Parameters = Sequence[Tensor | None]
TOGETHER = 8
"""Networks whose weights are made ready at the same time: few calls, and a bounded copy of the weights."""


class RowNetworks(Protocol):
    """n networks from rows (P, inputs) to rows (P, outputs); `networks.glow_rows.GlowRows` is one."""

    def run(self, i: int, kept: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor | None, ...]]:
        """Output of network i, in memory of its own, and what `pull_back` needs.

        With `keep`, that is in memory of its own too, and None stands for what is cheap to make again.
        """

    def pull_back(self, i: int, grad: Tensor, kept: Tensor, activations: tuple[Tensor | None, ...]) -> Tensor:
        """Gradient of `kept` from that of the output."""

    def gradients(self, into: Parameters) -> None:
        """Write those of all parameters, each stacked for the n networks, after `pull_back` of all."""


class RowNetwork(Protocol):
    """What a coupling's network has so that it can be computed in rows; see `networks.glow.GlowNetwork`."""

    def row_kind(self) -> Hashable | None: ...
    def row_parameters(self) -> Parameters: ...
    def row_networks(self, parameters: Sequence[Parameters], workspace: Workspace) -> RowNetworks: ...


def network_of(coupling: Coupling) -> RowNetwork:
    """The coupling's network, for rows."""
    return cast(RowNetwork, coupling.network)


def networks_from(
    couplings: Sequence[Coupling], first: int, parameters: Parameters, workspace: Workspace
) -> RowNetworks:
    """Those of `TOGETHER` couplings from number `first` on, ready to run."""
    each = len(parameters) // len(couplings)
    last = min(first + TOGETHER, len(couplings))
    chosen = [parameters[i * each : (i + 1) * each] for i in range(first, last)]
    return network_of(couplings[first]).row_networks(chosen, workspace)


def walk(
    couplings: Sequence[Coupling], parameters: Parameters, workspace: Workspace
) -> Iterator[tuple[Coupling, RowNetworks, int]]:
    """Every coupling, with networks that are ready, and the number of its own among them."""
    networks = None
    for i, coupling in enumerate(couplings):
        if networks is None or i % TOGETHER == 0:
            networks = networks_from(couplings, i, parameters, workspace)
        yield coupling, networks, i % TOGETHER
