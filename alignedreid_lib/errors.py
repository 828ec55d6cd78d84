"""The one error that the library raises about its input."""


class InputError(ValueError):
    """A file, value or setting cannot be used; the message, one line, names it and says what to do."""

    def __init__(self, message: str):
        # Names from outside may hold anything; a message stays one line, whatever it quotes.
        super().__init__("".join(char if char.isprintable() else " " for char in message))
