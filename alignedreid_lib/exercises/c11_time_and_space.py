"""Chapter 11: the operations of a distance matrix."""

from collections.abc import Callable

from alignedreid_lib.exercises.checking import Exercise


def _counter(
    ranking: Callable[[int, int], int] = lambda Q, G: Q * G,
    reranking: Callable[[int, int], int] = lambda Q, G: (Q + G) ** 2,
    each: int = 2,
) -> Callable[[int, int, int, bool], int]:
    """A function that counts operations: the pairs of both searches, and the operations per channel."""

    def count(Q: int, G: int, C: int, rerank: bool) -> int:
        return each * (reranking(Q, G) if rerank else ranking(Q, G)) * C

    return count


EXERCISE = Exercise(
    right=_counter(),
    cases={
        "2 queries, 3 images and 4 channels": (2, 3, 4, False),
        "re-ranking 2 queries and 3 images of 4 channels": (2, 3, 4, True),
        "Market-1501 with ResNet-50": (3368, 15913, 2048, False),
        "re-ranking Market-1501": (3368, 15913, 2048, True),
        "re-ranking one query without a gallery": (1, 0, 1, True),
    },
    mistakes={
        "You count the multiplications: each product is also added, which makes two operations per channel.": _counter(
            each=1
        ),
        "Re-ranking costs as much as ranking in your function: it needs the distances of all images to all, queries "
        "and gallery together.": _counter(reranking=lambda Q, G: Q * G),
        "Re-ranking compares the gallery with itself in your function: the queries are neighbours too, so the number "
        "of images is Q + G.": _counter(reranking=lambda Q, G: G**2),
        "You add the gallery's own pairs to the ranking: the queries' own pairs are needed too, and each gallery "
        "image also looks for queries.": _counter(reranking=lambda Q, G: Q * G + G**2),
        "You square the product of Q and G: square their sum.": _counter(reranking=lambda Q, G: (Q * G) ** 2),
        "You count every pair once: the product of a matrix with its transpose computes both halves.": _counter(
            reranking=lambda Q, G: (Q + G) * (Q + G - 1) // 2
        ),
        "You count the images of re-ranking, not their pairs: square Q + G.": _counter(reranking=lambda Q, G: Q + G),
        "You compare the queries with all images: in re-ranking gallery images look for neighbours too.": _counter(
            reranking=lambda Q, G: Q * (Q + G)
        ),
        "You count a pair of a query and a gallery image once: the matrix of all images contains it twice.": _counter(
            reranking=lambda Q, G: Q * Q + Q * G + G * G
        ),
        "You count the pairs: each pair costs two operations for each of the C channels.": lambda Q, G, C, rerank: (
            _counter()(Q, G, 1, rerank)
        ),
    },
    notice="Ranking grows with the gallery, re-ranking with its square: ten times the images cost a hundred times as "
    "much.",
)
