"""How a figure becomes an output: an SVG whose text is text and whose photographs have their own pixels.

It is sharp at every density and zoom, and small: a sheet of 30 people takes 150 kB. The same figure gives the same
bytes at every execution. Used by every chapter, through `figures`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import figure
from matplotlib.collections import Collection
from matplotlib.image import AxesImage
from PIL import Image

# Text stays text, and a matrix is stored with one pixel per cell.
SVG_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "alignedreid", "image.composite_image": False}
NO_DATE = {"Date": None, "Creator": None, "Format": None, "Type": None}
FONTS = "font-family: 'DejaVu Sans', Verdana, Arial, sans-serif"
PHOTOGRAPH, ON_IMAGE = "photograph", "on-image"  # classes in the SVG, see `_mark`
JPEG_QUALITY = 92  # of photographs
FEW = 24  # columns: an image with fewer is shown for its pixels


class Figure(figure.Figure):
    """A matplotlib figure that a notebook shows as an SVG.

    The site puts the SVG into the page and gives its colours those of the page, except in groups of class `on-image`:
    what is written or drawn over an image keeps its colour, because the image does.
    """

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """The figure as an SVG, without what the file does not need."""
        data, dpi = io.StringIO(), self.get_dpi()
        with mpl.rc_context(SVG_SETTINGS):
            self.set_dpi(72)  # an SVG's, on which the layout depends
            self.draw_without_rendering()
            _mark(self)
            self.savefig(data, format="svg", metadata=NO_DATE)
            self.set_dpi(dpi)
        return _small(data.getvalue())

    def address(self) -> str:
        """The figure as a data address, for `<img src>`."""
        return f"data:image/svg+xml;base64,{base64.b64encode(self.svg().encode()).decode()}"


def _mark(fig: figure.Figure) -> None:
    """Name photographs, and what is drawn over an image, in a drawn figure; the SVG tells them from the rest."""
    for ax in fig.axes:
        shown = [image for image in ax.get_images() if isinstance(image, AxesImage)]
        for image in shown:
            image.set_interpolation("none")  # one pixel per cell, never resampled
            values = image.get_array()
            image.set_gid(PHOTOGRAPH if values is not None and values.ndim == 3 else None)
        boxes = [image.get_window_extent() for image in shown]
        for artist in [*ax.texts, *ax.lines, *ax.patches, *ax.collections]:
            if isinstance(artist, Collection):  # its own window extent has markers, no lines
                where = artist.get_datalim(ax.transData).transformed(ax.transData)
            else:
                where = artist.get_window_extent()
            with np.errstate(invalid="ignore"):  # nothing is drawn: no centre
                x, y = (where.x0 + where.x1) / 2, (where.y0 + where.y1) / 2
            if any(box.contains(x, y) for box in boxes):
                artist.set_gid(ON_IMAGE)


def _photograph(element: re.Match[str]) -> str:
    """An image element with a JPEG instead of a PNG, smoothed where it is enlarged; one of few columns as it is."""
    columns = re.search(r' width="([\d.]+)"', element[0])
    if columns and float(columns[1]) < FEW:
        return element[0]
    text = re.sub(r' style="image-rendering[^"]*"', "", element[0])

    def smaller(address: re.Match[str]) -> str:
        data = io.BytesIO()
        pixels = Image.open(io.BytesIO(base64.b64decode(address[1]))).convert("RGB")
        pixels.save(data, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"

    return re.sub(r"data:image/png;base64,([^\"]+)", smaller, text)


def _small(svg: str) -> str:
    """An SVG of matplotlib with classes for its marked groups, one list of fonts, and no id that nothing refers to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(rf'\bid="({PHOTOGRAPH}|{ON_IMAGE})"', r'class="\1"', svg)
    svg = re.sub(rf'<image\b[^>]*class="{PHOTOGRAPH}"[^>]*', _photograph, svg)
    used = dict.fromkeys(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r"font-family: [^;\"]+(?:; )?", "", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    svg = svg.replace('<style type="text/css">*{', '<style type="text/css">text{' + FONTS + "} *{", 1)
    # Positions to a hundredth of a point; never texts, and never the scale of an image.
    svg = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\d\.\d\d)\d+", r"\1", found[0]), svg)
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    # matplotlib's names differ between executions; a page has many figures, so each has names of its own.
    for k, name in enumerate(used):
        svg = re.sub(rf'(id="|#){re.escape(name)}\b', rf"\1NAME{k}", svg)
    digest = hashlib.sha1(svg.encode()).hexdigest()[:8]
    return re.sub(r'(id="|#)NAME(\d+)\b', rf"\1f{digest}-\2", svg)
