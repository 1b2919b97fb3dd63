# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.models.base import HasFeatures as HasFeatures
from flows.models.base import HasNoise as HasNoise
from flows.models.base import HasStyles as HasStyles
from flows.models.base import LatentModel as LatentModel
from flows.models.base import LayerShape as LayerShape
from flows.models.base import LikelihoodBound as LikelihoodBound
from flows.models.base import LikelihoodModel as LikelihoodModel
from flows.models.base import Space as Space
from flows.models.biggan import BigGAN as BigGAN
from flows.models.codes import Codes as Codes
from flows.models.codes import concatenate as concatenate
from flows.models.dcgan import DCGAN as DCGAN
from flows.models.external import ExternalGenerator as ExternalGenerator
from flows.models.flow import Flow as Flow
from flows.models.gan import GAN as GAN
from flows.models.glow import Glow as Glow
from flows.models.lia import LIA as LIA
from flows.models.nice import NICE as NICE
from flows.models.pggan import PGGAN as PGGAN
from flows.models.priors import Logistic as Logistic
from flows.models.priors import Normal as Normal
from flows.models.priors import Prior as Prior
from flows.models.priors import make_prior as make_prior
from flows.models.realnvp import RealNVP as RealNVP
from flows.models.stylegan import StyleGAN as StyleGAN
from flows.models.styles import StyleModel as StyleModel

__all__ = [
    "BigGAN",
    "Codes",
    "DCGAN",
    "ExternalGenerator",
    "Flow",
    "GAN",
    "Glow",
    "HasFeatures",
    "HasNoise",
    "HasStyles",
    "LIA",
    "LatentModel",
    "LayerShape",
    "LikelihoodBound",
    "LikelihoodModel",
    "Logistic",
    "NICE",
    "Normal",
    "PGGAN",
    "Prior",
    "RealNVP",
    "Space",
    "StyleGAN",
    "StyleModel",
    "concatenate",
    "make_prior",
]
