"""Image files from outside: checked that they decode, and converted to the unified layout's format.

A JPEG of a release is copied byte for byte, because recompressing it loses quality (`copy_images`); the user's own
images have any format (`to_jpeg`). Derived in notebooks/01_datasets.
"""

import io
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from tqdm import tqdm

from alignedreid_lib.datasets.kinds import REPACK
from alignedreid_lib.errors import InputError

MAX_BYTES = 32 << 20  # a crop of a person is a few kB; this bounds decompression bombs
MAX_PIXELS = 1 << 24
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "WEBP", "TIFF", "GIF", "PPM")
SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
    *(".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".pbm", ".pnm"),
)
OTHER_SUFFIXES = (
    *(".heic", ".heif", ".hif", ".avif", ".avifs", ".jp2", ".j2k", ".jpx", ".jpf", ".jxl", ".jxr", ".apng", ".svg"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
    *(".ico", ".icns", ".tga", ".pcx", ".psd", ".xcf", ".exr", ".hdr", ".pfm", ".qoi", ".npy"),
)
# What file managers and storage systems leave behind, besides `._*`; nobody expects these to be read.
LITTER = (".ds_store", "thumbs.db", "desktop.ini", "@eadir", "__macosx")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # 8 bits per channel
_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright, and these are turned or mirrored
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def unfit(picture: Image.Image) -> str:
    """What is wrong with an opened image: deep pixels, which would turn white, or several images; "" if nothing is."""
    if picture.mode not in _MODES:
        return f"has pixels of kind {picture.mode}, not 8 bits per channel"
    frames = getattr(picture, "n_frames", 1)
    # An MPO is a phone's JPEG with a preview behind it.
    return f"contains {frames} images" if frames > 1 and picture.format != "MPO" else ""


def to_rgb(picture: Image.Image) -> Image.Image:
    """A decoded image as an upright RGB one; transparent parts become white."""
    picture = turn_upright(picture)
    if picture.has_transparency_data:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def turn_upright(picture: Image.Image) -> Image.Image:
    """A decoded image turned as its EXIF orientation requires; the image itself if it is upright.

    Pillow's `exif_transpose` also writes the other EXIF tags back, and fails on images whose pixels are fine.
    """
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What sets an image upright. Unreadable EXIF and invalid orientations are ignored."""
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # damaged EXIF can fail in any way
        return None


def copy_images(
    archive: zipfile.ZipFile, copies: Sequence[tuple[zipfile.ZipInfo, str]], images: Path, title: str
) -> None:
    """Copy JPEGs of a release's zip into a folder under new names, byte for byte.

    Args:
        copies: entries of the zip, and their new names.
        title: written before the progress bar.

    Raises:
        InputError: see `read_image`.
    """
    # One thread: the work without the GIL (inflate, decode, write) lasts 20 to 100 us per image, less than
    # handing the GIL over twice costs; two threads measured slower than one.
    for entry, new_name in tqdm(copies, desc=title, unit="img", disable=None):
        with open(f"{images}/{new_name}", "wb", buffering=0) as file:
            file.write(read_image(archive, entry))


def read_image(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """The bytes of a JPEG in a release's zip, unchanged, after decoding it once to prove that it decodes.

    Raises:
        InputError: not a JPEG, damaged, or absurdly large.
    """
    where, remedy = f"{archive.filename}: image {entry.filename}", "download the archive again"
    if entry.file_size > MAX_BYTES:  # before it is unpacked
        raise InputError(f"{where} is larger than {MAX_BYTES >> 20} MB; {remedy}")
    try:
        data = archive.read(entry)
    except MemoryError:
        raise
    except NotImplementedError as error:  # Deflate64, as Windows packs large files; a new download is the same
        raise InputError(f"{where} is packed in a way that Python does not read ({error}); {REPACK}") from error
    except Exception as error:  # a damaged zip can fail in any way
        raise InputError(f"{where} does not decode ({error}); {remedy}") from error
    check_jpeg(data, where, remedy)
    return data


def check_jpeg(data: bytes, where: str, remedy: str) -> None:
    """Decode a JPEG once to prove that it decodes.

    Args:
        data: the file.
        where: what to call it in messages.
        remedy: what to do about a bad one, the end of the message.

    Raises:
        InputError: not a JPEG, damaged, or absurdly large.
    """
    _check_bytes(data, where, remedy)
    with _decoding(where, "JPEG", remedy):
        picture = JpegImageFile(io.BytesIO(data))
        _check_pixels(picture, where, remedy)
        # An eighth of the size: the whole bit stream is still read, only the inverse transform is saved.
        picture.draft("L", (-(-picture.width // 8), -(-picture.height // 8)))
        picture.load()


def to_jpeg(data: bytes, where: str) -> bytes:
    """Any image as an upright RGB or grey JPEG; one that is so already is returned unchanged.

    Transparent parts become white. A new JPEG gets quality 95 and full colour resolution.

    Raises:
        InputError: not an image of a known format, damaged, absurdly large, animated, or of more than 8 bits a
            channel.
    """
    remedy, smaller = (f"{how}, or take it out" for how in ("save it as an 8-bit JPEG or PNG", "make it smaller"))
    _check_bytes(data, where, smaller)
    with _decoding(where, "an image", remedy):
        picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(picture, where, smaller)
        if problem := unfit(picture):
            raise InputError(f"{where} {problem}; {remedy}")
        kept = picture.format == "JPEG" and picture.mode in ("RGB", "L")
        if kept and _turn(picture) is None:
            check_jpeg(data, where, remedy)
            return data
        picture.load()
        plain = to_rgb(picture)
        plain.info = {}  # comments and the like, which may not fit into a JPEG
        buffer = io.BytesIO()
        plain.save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()


def _check_bytes(data: bytes, where: str, remedy: str) -> None:
    if len(data) > MAX_BYTES:
        raise InputError(f"{where} is larger than {MAX_BYTES >> 20} MB; {remedy}")


def _check_pixels(picture: Image.Image, where: str, remedy: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(f"{where} claims {picture.width} x {picture.height} pixels; {remedy}")


@contextmanager
def _decoding(where: str, what: str, remedy: str) -> Iterator[None]:
    """Turn what Pillow's decoders raise about damaged files into one line."""
    try:
        with warnings.catch_warnings():  # Pillow warns of damage that it corrects itself
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{where} does not decode as {what}, it is something else; {remedy}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged image can fail in any way
        raise InputError(f"{where} does not decode as {what} ({error}); {remedy}") from error
