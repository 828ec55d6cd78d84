"""Chapter 00: the rank of the first match in a list that leaves out the person in the query's own camera."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise

Kept = Callable[[bool, bool], bool]  # of an image of the query's person, of the query's camera


def _ranker(
    kept: Kept = lambda person, camera: not (person and camera),
    match: Kept = lambda person, camera: person,
    first: int = 1,
    nearest: int = 1,
) -> Callable[..., int | None]:
    """A function that finds the first match: which images stay in the list, which are matches, how it is sorted."""

    def rank(
        distances: list[float], ids: list[int], cameras: list[int], query_id: int, query_camera: int
    ) -> int | None:
        order = sorted(range(len(ids)), key=lambda g: nearest * distances[g])
        images = [(ids[g] == query_id, cameras[g] == query_camera) for g in order]
        images = [image for image in images if kept(*image)]
        return next((number for number, image in enumerate(images, first) if match(*image)), None)

    return rank


EXERCISE = Exercise(
    right=_ranker(),
    cases={
        "a list of a stranger and two matches": ([0.9, 0.3, 0.5], [7, 8, 7], [2, 3, 4], 7, 1),
        "a list that begins with the person in the query's own camera": (
            [0.1, 0.4, 0.2, 0.3],
            [7, 7, 8, 9],
            [1, 2, 3, 2],
            7,
            1,
        ),
        "a list that begins with a stranger in the query's own camera": ([0.1, 0.4, 0.2], [8, 7, 9], [1, 2, 3], 7, 1),
        "a list that begins with a match": ([0.1, 0.7], [7, 8], [2, 2], 7, 1),
        "a person that only the query's camera has seen": ([0.1, 0.2], [7, 8], [1, 2], 7, 1),
        "an empty gallery": ([], [], [], 7, 1),
    },
    mistakes={
        "The person's image from the query's own camera is a match in your list: leave it out, it is too easy to "
        "find.": _ranker(kept=lambda person, camera: True),
        "Your list keeps the person's images from the query's own camera as wrong images: take them out first, then "
        "count the ranks.": _ranker(
            kept=lambda person, camera: True, match=lambda person, camera: person and not camera
        ),
        "You leave out everybody that the query's camera has seen: only images of the query's person are left out, "
        "strangers stay.": _ranker(kept=lambda person, camera: not camera),
        "Your ranks begin with 0: the nearest image that stays has rank 1.": _ranker(first=0),
        "Your list begins with the farthest image: sort by distance, smallest first.": _ranker(nearest=-1),
        "Your list keeps the order of the gallery: sort it by distance, smallest first.": _ranker(nearest=0),
        "Without a match you return 0, which is not a rank: return None.": lambda *given: _ranker()(*given) or 0,
    },
    notice="An ignored image does not count as wrong either: the next image moves up to its rank.",
)
