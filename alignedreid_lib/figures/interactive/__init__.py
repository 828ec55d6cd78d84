"""Figures that a reader moves, without a kernel: one HTML output for the site and for JupyterLab."""

from alignedreid_lib.figures.interactive.evaluating import choose_the_threshold, order_the_list
from alignedreid_lib.figures.interactive.explorers import pull_the_points, slide_the_box
from alignedreid_lib.figures.interactive.neighbours import who_knows_whom
from alignedreid_lib.figures.interactive.output import Interactive

__all__ = [
    "Interactive",
    "choose_the_threshold",
    "order_the_list",
    "pull_the_points",
    "slide_the_box",
    "who_knows_whom",
]
