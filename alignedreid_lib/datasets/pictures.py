"""Picture files that come from outside: proved to decode, and brought to the one form the unified layout knows.

A JPEG of a release is kept byte for byte; people's own pictures come in any form. Derived in notebooks/01_datasets.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from alignedreid_lib.errors import InputError

MAX_BYTES = 32 << 20  # a crop of a person is a few kB; this is a bomb's bound, not a format's
MAX_PIXELS = 1 << 24
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
OTHER_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl", ".raw", ".dng", ".cr2", ".nef", ".svg", ".ico")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")  # 8 bits a channel
_ORIENTATION = 0x0112  # the EXIF tag; 1 is upright


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
    """Any picture as an upright RGB or grey JPEG; one that is so already is returned unchanged.

    Transparent parts become white. What is compressed anew gets quality 95 and full colour resolution.

    Raises:
        InputError: not a picture of a known format, damaged, absurdly large, animated, or of more than 8 bits a
            channel.
    """
    remedy = "save it as an 8-bit JPEG or PNG, or take it out"
    _check_bytes(data, where, remedy)
    with _decoding(where, "a picture", remedy):
        picture: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        _check_pixels(picture, where, remedy)
        if picture.mode not in _MODES:
            raise InputError(f"{where} has pixels of kind {picture.mode}, not 8 bits a channel; {remedy}")
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format != "MPO":  # a phone's JPEG with a preview behind it
            raise InputError(f"{where} holds {frames} pictures; {remedy}")
        kept = picture.format == "JPEG" and picture.mode in ("RGB", "L")
        if kept and picture.getexif().get(_ORIENTATION, 1) == 1:
            check_jpeg(data, where, remedy)
            return data
        picture.load()
        picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, "JPEG", quality=95, subsampling=0)
        return buffer.getvalue()


def _check_bytes(data: bytes, where: str, remedy: str) -> None:
    if len(data) > MAX_BYTES:
        raise InputError(f"{where} is larger than {MAX_BYTES >> 20} MB; {remedy}")


def _check_pixels(picture: Image.Image, where: str, remedy: str) -> None:
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(f"{where} claims {picture.width} x {picture.height} pixels; {remedy}")


@contextmanager
def _decoding(where: str, what: str, remedy: str) -> Iterator[None]:
    """Whatever Pillow's decoders raise about damaged files, as one line."""
    try:
        with warnings.catch_warnings():  # what Pillow mends by itself is nobody's business
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        raise InputError(f"{where} does not decode as {what}, it is something else; {remedy}") from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged picture can fail in any way
        raise InputError(f"{where} does not decode as {what} ({error}); {remedy}") from error
