"""A trained network as one file that other programs run without this library. Explained in notebooks/12."""

from alignedreid_lib.export.checking import Parity, compare, extract, milliseconds
from alignedreid_lib.export.writing import FORMATS, SearchNetwork, open_file, quantize, write

__all__ = ["FORMATS", "Parity", "SearchNetwork", "compare", "extract", "milliseconds", "open_file", "quantize", "write"]
