"""An interactive figure as a notebook's output: data, a script and a style in one piece of HTML.

The HTML names no other file and no id, so that it works offline, several times on a page, and gives the same bytes at
every execution. Without scripts, in print, and where a notebook is not trusted, the static figure is shown.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from alignedreid_lib.errors import InputError
from alignedreid_lib.figures.drawing import Figure


@dataclass(frozen=True)
class Interactive:
    """A figure that its reader moves; a notebook shows it as HTML, and as the static figure where HTML cannot be shown.

    Args:
        name: the script in this package that draws the figure, without `.js`.
        data: what the script draws; types of JSON, finite numbers.
        static: the figure shown where scripts are off, and in print.
        words: what the static figure shows, for those who cannot see it.

    Raises:
        InputError: no such script, or data that is not JSON; both when the HTML is made.
    """

    name: str
    data: Mapping[str, Any] = field(repr=False)  # a notebook keeps the text of an output, too
    static: Figure
    words: str

    @cached_property
    def picture(self) -> str:
        """The static figure as a data address."""
        return self.static.address()

    def _repr_svg_(self) -> str:
        return self.static.svg()

    def _repr_html_(self) -> str:
        try:
            data = json.dumps(self.data, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise InputError(f"data of the figure {self.name!r}: {error}; give lists of finite numbers") from None
        data = data.replace("</", r"<\/")  # a script element ends at its first "</"
        return "\n".join(
            [
                # Jupyter would take arrow keys as its own.
                f'<div class="touch {self.name}" data-lm-suppress-shortcuts="true">',
                f'<img class="static" alt="{html.escape(self.words)}" src="{self.picture}">',
                f"<style>{_file('common.css')}</style>",
                f'<script type="application/json">{data}</script>',
                f'<script>(() => {{\n"use strict";\n{_file("common.js")}{_file(self.name + ".js")}}})();</script>',
                "</div>",
            ]
        )


def jpeg_address(pixels: np.ndarray, quality: int = 85) -> str:
    """An image, uint8 [h, w, 3], as a data address."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _file(name: str) -> str:
    file = resources.files("alignedreid_lib.figures.interactive") / name
    if not file.is_file():
        raise InputError(f"no interactive figure is called {name.removesuffix('.js')!r}")
    return file.read_text("utf-8")
