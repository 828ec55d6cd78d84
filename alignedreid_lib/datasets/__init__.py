"""From a raw release archive to lists of images with identities and cameras. Derived in notebooks/01_datasets."""

from alignedreid_lib.datasets.combine import combine
from alignedreid_lib.datasets.dataset import Dataset, open_dataset
from alignedreid_lib.datasets.describe import DatasetCard, describe
from alignedreid_lib.datasets.for_full_run import provide
from alignedreid_lib.datasets.partitions import Partitions
from alignedreid_lib.datasets.prepare import prepare

__all__ = ["Dataset", "DatasetCard", "Partitions", "combine", "describe", "open_dataset", "prepare", "provide"]
