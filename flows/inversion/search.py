"""Settings that the searches of a comparison share."""

from dataclasses import dataclass, field

from flows.core.bounds import NonNegativeFloat, PositiveFloat, PositiveInt
from flows.core.options import Options
from flows.inversion.distance import Distance

__all__ = ["Search", "SearchSettings"]


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Options):
    """Settings of all inverters that search, in a comparison; an inverter's own config file has its own.

    Attributes:
        steps: Maximum number of optimisation steps per restart. None takes the published numbers: 1000 for
            `optimise` and the initial code of `layer`, 300 for the activations of `layer`, 100 for `hybrid`
            and `in-domain`, 450 for the initial code of `tune` and 350 for its weights. A number applies to
            `optimise` and `layer`, and limits the others.
        starts: Number of restarts of `optimise`, the first from the mean of the space, the others from random
            codes. Other methods have one.
        seconds: Maximum seconds per restart, for all images of a group together; not used by L-BFGS. None
            sets no limit.
        lr: Learning rate of `optimise`, and of the initial code in `layer` and `tune`, in units of std; other
            methods have their own.
        noise: Whether to optimise the noise inputs as well, for models that have them, as StyleGAN2's
            projector does.
        perceptual_weight: Weight of the perceptual distance in the loss of all optimisations; the mean
            squared error of pixels in [−1, 1] has weight 1.
    """

    steps: PositiveInt | None = None
    starts: PositiveInt = 1
    seconds: PositiveFloat | None = None
    lr: PositiveFloat = 0.1
    noise: bool = False
    perceptual_weight: NonNegativeFloat = 0.0


@dataclass(frozen=True)
class Search:
    """Settings and loss of the searches of a comparison.

    Attributes:
        settings: Settings.
        distance: Loss that all searches minimise.
    """

    settings: SearchSettings = SearchSettings()
    distance: Distance = field(default_factory=Distance)

    def at_most(self, published: int) -> int:
        """Published number of steps of a method, limited by the settings."""
        return published if self.settings.steps is None else min(self.settings.steps, published)

    def steps(self, published: int) -> int:
        """Number of steps of the settings, else the published one."""
        return self.settings.steps or published
