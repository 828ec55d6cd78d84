"""Read release archives straight from the zip, in bounded memory, without trusting them.

`DeflatedFile` gives h5py random access to a MATLAB file of 1.7 GB inside a zip, without unpacking it; images are read
by `jpegs.read_image`. Derived in notebooks/01_datasets.
"""

import io
import stat
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignedreid_lib.datasets.jpegs import LITTER
from alignedreid_lib.datasets.kinds import REPACK, what_instead
from alignedreid_lib.errors import InputError


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip after checking every entry.

    Args:
        path: the archive.

    Raises:
        InputError: not a zip, cut short, damaged, encrypted, or an entry that points outside (or is a link).
    """
    try:
        archive = zipfile.ZipFile(path)
    except OSError:
        raise
    except Exception as error:  # a damaged zip can fail in any way
        with open(path, "rb") as file:
            start = file.read(512)
        if start.startswith(b"PK\x03\x04"):
            raise InputError(f"{path} is cut short or damaged ({error}); download it again") from error
        raise InputError(f"{path} is not a zip{what_instead(start)}") from error
    with archive:
        for entry in archive.infolist():
            _check_entry(path, entry)
        try:
            yield archive
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise InputError(f"{path} is damaged ({error}); download it again") from error


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    # orig_filename: ZipInfo.filename has its backslashes replaced on Windows and is cut at a zero byte.
    parts = entry.orig_filename.replace("\\", "/").split("/")
    if not entry.filename:
        raise InputError(f"{path} is damaged (an entry has no name); download it again")
    outside = parts[0] == "" or ".." in parts or ":" in parts[0]
    if outside or stat.S_ISLNK(entry.external_attr >> 16):
        raise InputError(
            f"{path} contains an entry that points outside, {entry.orig_filename!r}; "
            "do not use it, download the archive from its official page"
        )
    if entry.flag_bits & 0x1:
        raise InputError(f"{path} is encrypted ({entry.filename}); give an archive without a password")
    entry.filename = entry.filename.replace(
        "\\", "/"
    )  # of zips by .NET and PowerShell; the file still has orig_filename


def list_files(archive: zipfile.ZipFile) -> dict[str, dict[str, zipfile.ZipInfo]]:
    """Files by the name of their folder: {folder: {file name: entry}}.

    Only a folder's own name counts, so it does not matter how deep an archive was packed. What file managers leave
    behind (`__MACOSX/`, `._*`, `Thumbs.db`, `.DS_Store`) is left out.

    Raises:
        InputError: two folders of one name contain a file of the same name.
    """
    folders: dict[str, dict[str, zipfile.ZipInfo]] = {}
    for entry in archive.infolist():
        parts = entry.filename.split("/")
        name = parts[-1]
        if entry.is_dir() or name.startswith("._") or any(part.lower() in LITTER for part in parts):
            continue
        files = folders.setdefault(parts[-2] if len(parts) > 1 else "", {})
        if name in files and not name.startswith("."):
            raise InputError(
                f"{archive.filename} contains {name} twice ({files[name].filename} and {entry.filename}); "
                "give an archive of one release"
            )
        files[name] = entry
    return folders


class DeflatedFile(io.RawIOBase):
    """A zip entry as a seekable read-only file, without unpacking it to disk or into memory.

    Deflate can only be read forwards. While it is, the decompressor's state (about 50 kB) is kept every
    `CHECKPOINT` chunks, so that going back costs at most that many chunks; recent chunks are cached.

    Args:
        path: the zip file.
        entry: a deflated or stored entry of it.

    Raises:
        InputError: a different compression method.
    """

    CHUNK = 1 << 20  # bytes
    CHECKPOINT = 8  # chunks: 1.7 GB make about 200 states, 10 MB
    CACHED = 64  # chunks
    READ = 1 << 16  # compressed bytes at a time

    def __init__(self, path: Path, entry: zipfile.ZipInfo):
        if entry.compress_type not in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
            raise InputError(f"{path}: {entry.filename} is packed in a way that Python does not read; {REPACK}")
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115  closed in close()
        self._file.seek(entry.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", self._file.read(4))
        self._start = entry.header_offset + 30 + name_length + extra_length
        self._entry = entry
        self._position = 0
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        # A state: (next chunk, compressed bytes consumed, decompressor ready for that chunk or None if stored).
        decompressor = zlib.decompressobj(-15) if entry.compress_type == zipfile.ZIP_DEFLATED else None
        self._checkpoints = {0: (0, decompressor)}
        self._next, self._consumed = 0, 0
        self._decompressor = decompressor.copy() if decompressor else None
        self._checksum, self._checked = 0, 0  # CRC-32 of the first `_checked` chunks

    def readable(self) -> bool:
        """Always true."""
        return True

    def seekable(self) -> bool:
        """Always true."""
        return True

    def tell(self) -> int:
        """The position in the unpacked file, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position in the unpacked file; costs nothing until something is read."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._entry.file_size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer) -> int:
        """Fill `buffer`, starting at the position; gives the number of bytes, fewer at the end of the file."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view) and self._position < self._entry.file_size:
            index, offset = divmod(self._position, self.CHUNK)
            piece = memoryview(self._chunk(index))[offset : offset + len(view) - done]
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._position += len(piece)
        return done

    def verify(self) -> None:
        """Read on to the end of the entry and compare its checksum with the zip's.

        Raises:
            zipfile.BadZipFile: they differ.
        """
        for index in range(self._checked, -(-self._entry.file_size // self.CHUNK)):
            self._chunk(index)
        if self._checksum != self._entry.CRC:
            raise zipfile.BadZipFile(f"bad CRC-32 of {self._entry.filename}")

    def close(self) -> None:
        """Close the zip file and drop the cache."""
        self._file.close()
        self._cache.clear()
        super().close()

    def _chunk(self, index: int) -> bytes:
        if index in self._cache:
            self._cache.move_to_end(index)
            return self._cache[index]
        nearest = max(first for first in self._checkpoints if first <= index)
        if not nearest <= self._next <= index:  # the running state is past it, or a checkpoint is nearer
            self._next = nearest
            self._consumed, state = self._checkpoints[nearest]
            self._decompressor = state.copy() if state else None
        while self._next <= index:
            chunk = self._unpack()
            if self._next == self._checked:
                self._checksum = zlib.crc32(chunk, self._checksum)
                self._checked += 1
            self._cache[self._next] = chunk
            self._next += 1
            if self._next % self.CHECKPOINT == 0 and self._next not in self._checkpoints:
                state = self._decompressor.copy() if self._decompressor else None
                self._checkpoints[self._next] = (self._consumed, state)
            while len(self._cache) > self.CACHED:
                self._cache.popitem(last=False)
        return chunk

    def _unpack(self) -> bytes:
        """The running state's next chunk."""
        size = min(self.CHUNK, self._entry.file_size - self._next * self.CHUNK)
        chunk = bytearray()
        while len(chunk) < size:
            self._file.seek(self._start + self._consumed)
            packed = self._file.read(min(self.READ, self._entry.compress_size - self._consumed))
            if self._decompressor is None:
                piece = packed[: size - len(chunk)]
                self._consumed += len(piece)
            else:
                piece = self._decompressor.decompress(packed, size - len(chunk))
                self._consumed += len(packed) - len(self._decompressor.unconsumed_tail)
            if not piece and not packed:
                raise zipfile.BadZipFile(f"{self._entry.filename} ends early")
            chunk += piece
        return bytes(chunk)
