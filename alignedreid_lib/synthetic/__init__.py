"""Drawn pedestrians, packed like the releases of real datasets. Explained in notebooks/01_datasets."""

from alignedreid_lib.synthetic.drawn_archives import (
    BOXES,
    VIEWS,
    detector_box,
    make_archive,
    sample_cameras,
    sample_person,
    take,
)
from alignedreid_lib.synthetic.packing import Shot

__all__ = ["BOXES", "VIEWS", "Shot", "detector_box", "make_archive", "sample_cameras", "sample_person", "take"]
