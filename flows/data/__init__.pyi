# Written by `python -m flows.core.lazy` from the lists `__all__` of the files beside it.

from flows.data.base import ArraySplit as ArraySplit
from flows.data.base import Attribute as Attribute
from flows.data.base import Batch as Batch
from flows.data.base import ImageData as ImageData
from flows.data.base import Split as Split
from flows.data.base import StreamedData as StreamedData
from flows.data.celeba import CelebA as CelebA
from flows.data.digits import Digits as Digits
from flows.data.emoji import Emoji as Emoji
from flows.data.fashion import Fashion as Fashion
from flows.data.folder import Folder as Folder
from flows.data.hub import HubData as HubData
from flows.data.imagenet_small import ImageNetSmall as ImageNetSmall
from flows.data.lsun import LSUN as LSUN
from flows.data.ood import ood_images as ood_images
from flows.data.own import as_data as as_data
from flows.data.patches import Patches as Patches
from flows.data.photos import Photos as Photos
from flows.data.scenes import Scenes as Scenes
from flows.data.shards import Shards as Shards
from flows.data.source import instantiate_data as instantiate_data
from flows.data.torchvision_sets import CIFAR10 as CIFAR10
from flows.data.torchvision_sets import CIFAR100 as CIFAR100
from flows.data.torchvision_sets import EMNIST as EMNIST
from flows.data.torchvision_sets import Flowers102 as Flowers102
from flows.data.torchvision_sets import KMNIST as KMNIST
from flows.data.torchvision_sets import MNIST as MNIST
from flows.data.torchvision_sets import STL10 as STL10
from flows.data.torchvision_sets import SVHN as SVHN
from flows.data.torchvision_sets import USPS as USPS

__all__ = [
    "ArraySplit",
    "Attribute",
    "Batch",
    "CIFAR10",
    "CIFAR100",
    "CelebA",
    "Digits",
    "EMNIST",
    "Emoji",
    "Fashion",
    "Flowers102",
    "Folder",
    "HubData",
    "ImageData",
    "ImageNetSmall",
    "KMNIST",
    "LSUN",
    "MNIST",
    "Patches",
    "Photos",
    "STL10",
    "SVHN",
    "Scenes",
    "Shards",
    "Split",
    "StreamedData",
    "USPS",
    "as_data",
    "instantiate_data",
    "ood_images",
]
