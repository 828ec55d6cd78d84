"""The one error that the library raises about its input."""


class InputError(ValueError):
    """A file, value or setting cannot be used; the one-line message names it and what to do about it."""

    def __init__(self, message: str):
        # A quoted name may contain line breaks; a message stays one line.
        super().__init__("".join(char if char.isprintable() else " " for char in message))
