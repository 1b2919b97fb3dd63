# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.bijections.base import Bijection as Bijection
from flows.bijections.base import Example as Example
from flows.bijections.base import Inverse as Inverse
from flows.bijections.batchnorm import BatchNorm as BatchNorm
from flows.bijections.chain import Chain as Chain
from flows.bijections.chain import Tap as Tap
from flows.bijections.coupling import AdditiveCoupling as AdditiveCoupling
from flows.bijections.coupling import AffineCoupling as AffineCoupling
from flows.bijections.coupling import Coupling as Coupling
from flows.bijections.dequantise import Dequantiser as Dequantiser
from flows.bijections.dequantise import UniformDequantiser as UniformDequantiser
from flows.bijections.dequantise import VariationalDequantiser as VariationalDequantiser
from flows.bijections.forms import AdditiveForm as AdditiveForm
from flows.bijections.forms import AffineForm as AffineForm
from flows.bijections.forms import CouplingForm as CouplingForm
from flows.bijections.forms import Terms as Terms
from flows.bijections.linear import InvertibleConv1x1 as InvertibleConv1x1
from flows.bijections.linear import InvertibleConv1x1LU as InvertibleConv1x1LU
from flows.bijections.linear import Whitening as Whitening
from flows.bijections.multiscale import Multiscale as Multiscale
from flows.bijections.partition import Checkerboard as Checkerboard
from flows.bijections.partition import Halves as Halves
from flows.bijections.partition import OddEven as OddEven
from flows.bijections.partition import Partition as Partition
from flows.bijections.permutation import Permutation as Permutation
from flows.bijections.permutation import Reverse as Reverse
from flows.bijections.pixels import Centre as Centre
from flows.bijections.pixels import Logit as Logit
from flows.bijections.pixels import Sigmoid as Sigmoid
from flows.bijections.scales import Exponential as Exponential
from flows.bijections.scales import LearnedTanh as LearnedTanh
from flows.bijections.scales import Scale as Scale
from flows.bijections.scales import SigmoidScale as SigmoidScale
from flows.bijections.scales import TwoSided as TwoSided
from flows.bijections.scaling import ActNorm as ActNorm
from flows.bijections.scaling import DiagonalScaling as DiagonalScaling
from flows.bijections.scaling import LearnedPrior as LearnedPrior
from flows.bijections.squeeze import Flatten as Flatten
from flows.bijections.squeeze import OrderedSqueeze as OrderedSqueeze
from flows.bijections.squeeze import Squeeze as Squeeze

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AdditiveForm",
    "AffineCoupling",
    "AffineForm",
    "BatchNorm",
    "Bijection",
    "Centre",
    "Chain",
    "Checkerboard",
    "Coupling",
    "CouplingForm",
    "Dequantiser",
    "DiagonalScaling",
    "Example",
    "Exponential",
    "Flatten",
    "Halves",
    "Inverse",
    "InvertibleConv1x1",
    "InvertibleConv1x1LU",
    "LearnedPrior",
    "LearnedTanh",
    "Logit",
    "Multiscale",
    "OddEven",
    "OrderedSqueeze",
    "Partition",
    "Permutation",
    "Reverse",
    "Scale",
    "Sigmoid",
    "SigmoidScale",
    "Squeeze",
    "Tap",
    "Terms",
    "TwoSided",
    "UniformDequantiser",
    "VariationalDequantiser",
    "Whitening",
]
