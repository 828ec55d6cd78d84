"""The network, and the weights that go in and out. Explained in notebooks/03_model."""

from alignedreid_lib.model.backbones import DepthwiseConv2d, build_backbone
from alignedreid_lib.model.network import AlignedReID, Embedding
from alignedreid_lib.model.weights import LoadReport, load_weights, read_weights

__all__ = [
    "AlignedReID",
    "DepthwiseConv2d",
    "Embedding",
    "LoadReport",
    "build_backbone",
    "load_weights",
    "read_weights",
]
