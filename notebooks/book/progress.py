"""A line that shows what a command does and for how long: on a terminal it moves, in a log it comes every 20 s."""

import shutil
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

EVERY = 20.0  # seconds between two lines in a log; on a terminal the one line is renewed twice a second
WIDTH = 24  # of titles, so that the seconds are in one column


class Line:
    """Inside its `with`, tells again and again what is being done; at the end leaves one line with title and seconds.

    Args:
        title: what the command works on, for example a chapter.
        doing: asked each time for what is being done now, a few words.
        stream: where the lines go, standard output by default.
        every: seconds between two lines where the stream is not a terminal.

    Attributes:
        ending: words for the end of the last line; the caller may set them inside.
        began: when, by `time.perf_counter`; likewise.
    """

    def __init__(
        self, title: str, doing: Callable[[], str], stream: TextIO | None = None, every: float = EVERY
    ) -> None:
        self.title, self.doing, self.ending = title, doing, ""
        self._stream = sys.stdout if stream is None else stream
        self._moves = self._stream.isatty()
        self._pause = 0.5 if self._moves else every
        self._done = threading.Event()
        self.began = time.perf_counter()
        self._teller = threading.Thread(target=self._tell, daemon=True)

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self.began

    def __enter__(self) -> Self:
        self._teller.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._done.set()
        self._teller.join()
        if kind is not None and not self.ending:
            self.ending = "stopped" if issubclass(kind, KeyboardInterrupt) else "failed"
        self._write(self.ending, last=True)

    def _tell(self) -> None:
        if self._moves:
            self._write("")
        while not self._done.wait(self._pause):
            self._write(self.doing())

    def _write(self, words: str, last: bool = False) -> None:
        text = f"{self.title:<{WIDTH}}{self.seconds:5.0f} s  {words}".rstrip()
        if self._moves:
            text = f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}"
        self._stream.write(text + ("\n" if last or not self._moves else ""))
        self._stream.flush()
