"""Chapter 01: identities with gaps become labels without."""

from alignedreid_lib.exercises.checking import Exercise


def _right(ids: list[int]) -> list[int]:
    return [sum(other < one for other in set(ids)) for one in ids]


EXERCISE = Exercise(
    right=_right,
    cases={
        "the identities [2, 9, 7]": ([2, 9, 7],),
        "[9, 2, 9, 2, 2, 30], where people have several images": ([9, 2, 9, 2, 2, 30],),
        "one image of person 5": ([5],),
        "no image": ([],),
    },
    mistakes={
        "Your labels follow the order in which people appear: sort the identities first, so that the order of the "
        "files does not matter.": lambda ids: [list(dict.fromkeys(ids)).index(one) for one in ids],
        "You count images with a smaller identity: count people, each of them once.": lambda ids: [
            sum(other < one for other in ids) for one in ids
        ],
        "Your labels begin with 1: a classifier of n people has the classes 0 to n - 1.": lambda ids: [
            sum(other <= one for other in set(ids)) for one in ids
        ],
        "Your labels keep the gaps: subtracting the smallest identity moves the numbers without closing "
        "them.": lambda ids: [one - min(ids) for one in ids],
        "You return one label per person: return one per image.": lambda ids: list(range(len(set(ids)))),
        "You number the images: number the people, so that all images of a person have one label.": lambda ids: list(
            range(len(ids))
        ),
        "Your labels fall as the identities rise: count the smaller identities, not the larger ones.": lambda ids: [
            sum(other > one for other in set(ids)) for one in ids
        ],
    },
    notice="The order of the images does not matter, so two machines that list files differently give the same labels.",
)
