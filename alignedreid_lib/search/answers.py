"""What a search answers. Explained in notebooks/12."""

from dataclasses import dataclass
from typing import NamedTuple

from alignedreid_lib.search.labels import Label


class Match(NamedTuple):
    """An image that a search found."""

    name: str
    id: Label | None  # None: unknown
    camera: Label | None
    distance: float
    row: int  # its number in the index


@dataclass(frozen=True)
class Answer:
    """What a search found for one query: `matches`, nearest first. None of them means nobody, see `Index.threshold`."""

    query: str
    matches: list[Match]

    @property
    def nobody(self) -> bool:
        """True if no image of the index is near enough."""
        return not self.matches

    def __str__(self) -> str:
        lines = [f"{self.query}: {'nobody' if self.nobody else ''}".rstrip()]
        for rank, match in enumerate(self.matches, 1):
            person = "" if match.id is None else f"  {match.id}"
            lines.append(f"{rank:4} {match.distance:8.4g}{person}  {match.name}")
        return "\n".join(lines)
