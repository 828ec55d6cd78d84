"""How a reader's function is judged: by its results on small inputs, compared with those of typical mistakes.

Each other module of this package contains one chapter's exercise. Whatever the function does, the answer is a sentence.
"""

import copy
import importlib
import math
import pkgutil
import textwrap
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from alignedreid_lib.errors import InputError

WIDTH = 78  # of a printed line
LONG = 70  # characters of a value that a sentence shows
CLOSE = 1e-5  # relative and absolute: float32 is welcome


@dataclass(frozen=True)
class Exercise:
    """A question whose answer is a function.

    Args:
        right: the function that solves it.
        cases: the inputs, each under words that follow "For ...", edge cases last.
        mistakes: typical wrong functions, each under the sentence that a teacher would say.
        notice: one sentence for those who solved it.
    """

    right: Callable[..., Any]
    cases: Mapping[str, tuple[Any, ...]]
    mistakes: Mapping[str, Callable[..., Any]]
    notice: str


@dataclass(frozen=True)
class Answer:
    """What a check answers; true if the function is right. A notebook shows the words."""

    right: bool
    words: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return textwrap.fill(self.words, WIDTH, break_long_words=False)


@dataclass(frozen=True)
class Raised:
    """The result of a call that ended in an exception."""

    words: str


def check(chapter: str, function: Callable[..., Any]) -> Answer:
    """What is wrong with a function that answers a chapter's exercise, or that it is correct.

    Args:
        chapter: the chapter's name, such as `04_alignment`.
        function: the reader's. It gets copies of its inputs.

    Raises:
        InputError: the chapter has no exercise of this kind.
    """
    known = sorted(module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]))
    if f"c{chapter}" not in known:
        names = ", ".join(name[1:] for name in known if name[1:3].isdigit())
        raise InputError(f"{chapter!r} is not a chapter with an exercise to check; give one of {names}")
    exercise: Exercise = importlib.import_module(f"{__package__}.c{chapter}").EXERCISE
    return judge(exercise, function)


def judge(exercise: Exercise, function: Callable[..., Any]) -> Answer:
    """Compares a function with the right one, then with the typical mistakes, then names the first wrong result."""
    if not callable(function):
        return Answer(False, "Not yet. Give `check` the function itself: its name without parentheses.")
    found, right = _results(function, exercise), _results(exercise.right, exercise)
    wrong = [k for k, (one, other) in enumerate(zip(found, right, strict=True)) if not same(one, other)]
    if not wrong:
        return Answer(True, f"Correct. {exercise.notice}")
    if all(result is None for result in found):
        return Answer(False, "Not yet. The function returns None: end it with `return` and the result.")
    explained = {words: _explained(_results(made, exercise), found, right) for words, made in exercise.mistakes.items()}
    words = max(explained, key=lambda sentence: explained[sentence])
    returned = [k for k in wrong if not isinstance(found[k], Raised)]
    if explained[words] > len(returned) / 2:
        return Answer(False, f"Not yet. {words}")
    case, got, expected = list(exercise.cases)[wrong[0]], found[wrong[0]], right[wrong[0]]
    if isinstance(got, list) and isinstance(expected, list) and _shape(got) != _shape(expected) and _is_long(expected):
        return Answer(False, f"Not yet. For {case}, the answer has shape {_shape(expected)}, but yours {_shape(got)}.")
    did = f"the function raises {got.words}" if isinstance(got, Raised) else f"yours is {_shown(got)}"
    return Answer(False, f"Not yet. For {case}, the answer is {_shown(expected)}, but {did}.")


def _results(function: Callable[..., Any], exercise: Exercise) -> list[Any]:
    """What a function returns or raises for each case, in plain Python."""
    results: list[Any] = []
    for arguments in exercise.cases.values():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a division by zero, whose result is compared
                results.append(plain(function(*copy.deepcopy(arguments))))
        except (Exception, SystemExit) as error:  # a reader's function may fail in any way
            words = f"{type(error).__name__}: {error}".strip().rstrip(".:")
            results.append(Raised(_cut(words)))
    return results


def plain(value: Any) -> Any:
    """Tensors and arrays as lists, their scalars as numbers, at any depth."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {plain(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return {plain(entry) for entry in value} if isinstance(value, set | frozenset) else value


def same(found: Any, expected: Any) -> bool:
    """True for two plain results that are equal: numbers up to rounding, a set in any order, nan equal to nan."""
    if isinstance(expected, Real) and isinstance(found, Real):
        try:
            one, other = float(found), float(expected)
        except OverflowError:  # a whole number of hundreds of digits
            return found == expected
        return math.isclose(one, other, rel_tol=CLOSE, abs_tol=CLOSE) or (math.isnan(one) and math.isnan(other))
    if isinstance(expected, set):
        if not isinstance(found, set | list) or len(found) != len(expected):
            return False
        return all(any(same(one, other) for one in found) for other in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return type(found) is type(expected) and bool(found == expected)


def _explained(mistaken: list[Any], found: list[Any], right: list[Any]) -> int:
    """How many wrong results a mistake gives too; 0 for a mistake with a wrong result where the reader has a right one.

    An edge case may be treated in a different way, or end in an exception, and the mistake is still the same.
    """
    number = 0
    for m, f, r in zip(mistaken, found, right, strict=True):
        if isinstance(m, Raised) or isinstance(f, Raised):
            continue
        if same(f, r) and not same(m, r):
            return 0
        number += not same(f, r) and same(f, m)
    return number


def _shape(value: Any) -> list[int]:
    """The lengths of nested lists, from their first entries."""
    return [len(value), *_shape(value[0])] if isinstance(value, list) and value else []


def _is_long(value: Any) -> bool:
    """True for a result that a sentence would cut off."""
    return len(_shown(value)) > LONG


def _shown(value: Any) -> str:
    """A result in a sentence: numbers rounded, and not too long."""

    def rounded(entry: Any) -> Any:
        if isinstance(entry, list):
            return [rounded(one) for one in entry]
        return round(entry, 4) if isinstance(entry, float) else entry

    try:
        return _cut(repr(rounded(value)))
    except Exception:  # a reader's own class, or a number of thousands of digits
        return f"a value of type {type(value).__name__}"


def _cut(words: str) -> str:
    """One line of limited length."""
    words = " ".join(words.split())
    return words if len(words) <= LONG else f"{words[:LONG]}…"
