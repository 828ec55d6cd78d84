"""Pickles of plain data, read without trusting them.

The unified layout's `partitions.pkl` is a pickle for compatibility, and a pickle is a program. This module does not run
it: substitutes replace the few numpy globals that a plain pickle names. Derived in notebooks/01_datasets.
"""

import io
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from alignedreid_lib.errors import InputError
from alignedreid_lib.runs.files import replacing

MAX_BYTES = 256 << 20  # the names of a million images are 40 MB


def save_pickle(content: Any, path: str | Path) -> None:
    """Write `content` as a pickle that Python 2 reads too; a kill leaves the old file or the new one."""
    with replacing(Path(path)) as beside:
        beside.write_bytes(pickle.dumps(content, protocol=2))


def load_pickle(path: str | Path) -> Any:
    """Read a pickle of dict, list, tuple, str, int and numpy arrays; nothing in it is ever executed.

    Python 2 strings become str (latin1); numpy scalars become int or str, arrays lists.

    Raises:
        InputError: no such file, not a pickle, or anything else inside, named.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path} is larger than {MAX_BYTES >> 20} MB, so it is not a list of names; make it again")
        # From memory: a file's read(n) would set n bytes aside, whatever n a damaged pickle contains.
        return _plain(_SafeUnpickler(io.BytesIO(path.read_bytes()), path).load(), path, {})
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise InputError(f"{path} is not a readable pickle ({type(error).__name__}); make it again") from error


class _Dtype:
    """Replaces numpy.dtype: integers and strings only, or O for an array of the above."""

    def __init__(self, code: str, *_: Any):
        if re.fullmatch(r"[<>|=]?([iu][1248]|b1|[SaU]\d+|O8?)", code) is None:
            raise pickle.UnpicklingError(f"dtype {code}")
        self.code, self.order = code.lstrip("<>|="), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in "<>" else "|"

    def decode(self, data: bytes | str) -> list:
        raw = data.encode("latin1") if isinstance(data, str) else data
        values = np.frombuffer(raw, np.dtype(self.order + self.code)).tolist()
        return [value.decode("latin1") if isinstance(value, bytes) else value for value in values]


class _Array:
    """Replaces numpy.ndarray: takes its pickled state, becomes a list."""

    values: list

    def __new__(cls, *_: Any):
        return super().__new__(cls)

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, _, data = state
        if len(shape) != 1:
            raise pickle.UnpicklingError("an array of several axes")
        self.values = data if isinstance(data, list) else dtype.decode(data)


class _Scalar:
    """Replaces numpy's scalar(dtype, bytes) by a plain int or str."""

    def __new__(cls, dtype: _Dtype, data: bytes | str):
        return dtype.decode(data)[0]

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("state of a scalar")


class _Bytes(_Scalar):
    """Replaces _codecs.encode, with which Python 3 writes bytes into a protocol 2 pickle."""

    def __new__(cls, text: str, encoding: str = "latin1"):
        return text.encode("latin1")


_PythonUnpickler: Any = pickle._Unpickler


class _SafeUnpickler(_PythonUnpickler):
    """The unpickler written in Python: a memo index of four bytes makes the one written in C set gigabytes aside."""

    # The globals that a pickle may name, and their substitutes. numpy's own reconstruction, which trusts its input,
    # never runs. Each substitute has __setstate__, so that BUILD cannot alter it.
    _GLOBALS: ClassVar[dict[str, Any]] = {
        "numpy.ndarray": _Array,
        "numpy.dtype": _Dtype,
        **{f"numpy.{core}.multiarray._reconstruct": _Array for core in ("core", "_core")},
        **{f"numpy.{core}.multiarray.scalar": _Scalar for core in ("core", "_core")},
        "_codecs.encode": _Bytes,
    }

    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._GLOBALS[f"{module}.{name}"]
        except KeyError:
            raise InputError(
                f"{self._path} refers to {module}.{name}; only dict, list, tuple, str, int and numpy arrays are "
                "read, so do not trust this file"
            ) from None

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append(dict(_pairs(items)))

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1].update(_pairs([key, value]))

    def load_setitems(self) -> None:
        items = self.pop_mark()
        self.stack[-1].update(_pairs(items))

    def load_set(self) -> None:
        raise pickle.UnpicklingError("a set")

    dispatch: ClassVar[dict[int, Any]] = {
        **_PythonUnpickler.dispatch,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.EMPTY_SET[0]: load_set,
        pickle.FROZENSET[0]: load_set,
    }


def _pairs(items: list[Any]) -> list[tuple[Any, Any]]:
    """Keys and values in turn, as pairs. A key is plain, because hashing tuples of tuples can take endlessly long."""
    keys, values = items[::2], items[1::2]
    if any(type(key) not in (str, int, bytes) for key in keys):
        raise pickle.UnpicklingError("a key that is neither str nor int")
    return list(zip(keys, values, strict=True))


def _plain(value: Any, path: Path, done: dict[int, Any]) -> Any:
    """`value` with arrays as lists and bytes as str, at every depth; a shared object is converted once."""
    if type(value) in (str, int, bool):
        return value
    if isinstance(value, bytes):
        return value.decode("latin1")
    if id(value) in done:
        if done[id(value)] is None:
            raise InputError(f"{path} contains a {type(value).__name__} that contains itself; make it again")
        return done[id(value)]
    done[id(value)] = None
    inside = value.values if isinstance(value, _Array) else value
    plain: Any
    if isinstance(inside, dict):
        plain = {_plain(key, path, done): _plain(item, path, done) for key, item in inside.items()}
    elif isinstance(inside, list | tuple):
        plain = type(inside)(_plain(item, path, done) for item in inside)
    else:
        raise InputError(
            f"{path} contains a {type(value).__name__}; only dict, list, tuple, str, int and numpy arrays are read"
        )
    done[id(value)] = plain
    return plain
