"""The book's figures: each function takes data and returns a Figure; nothing is shown, saved or remembered."""

from alignedreid_lib.figures.charts import (
    cmc_curves,
    dataset_card,
    draw_images_per_id,
    histogram_of_images_per_id,
    open_set,
    training_curves,
)
from alignedreid_lib.figures.interactive import Interactive, pull_the_points, slide_the_box, who_knows_whom
from alignedreid_lib.figures.sheets import (
    BLACK,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    STYLES,
    VERMILLION,
    Figure,
    batch_grid,
    contact_sheet,
    ranked_lists,
)

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "ORANGE",
    "PURPLE",
    "SKY",
    "STYLES",
    "VERMILLION",
    "Figure",
    "Interactive",
    "batch_grid",
    "cmc_curves",
    "contact_sheet",
    "dataset_card",
    "draw_images_per_id",
    "histogram_of_images_per_id",
    "open_set",
    "pull_the_points",
    "ranked_lists",
    "slide_the_box",
    "training_curves",
    "who_knows_whom",
]
