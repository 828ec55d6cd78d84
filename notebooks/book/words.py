"""Words that the book avoids: a pattern for each habit that a machine can find, and what to write instead."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator

PATTERNS = {
    "name the person, or use the passive": r"\bwhoever\b|(?:^|[.;:] )who (?![^.]*\?)",
    "write 'per'": r"\b(?:rows?|lines?|points?|images|numbers|colours?|files?|process|training|preset|mark) an? "
    r"(?:row|camera|query|person|identity|epoch|seed|GPU|image|stripe|pixel|cell|second)\b",
    "write 'not a', an adjective or a verb": r"(?<!there )\b(?:is|are|be) (?:no|none)\b(?! \w+er than)",
    "write be, come, rank or compare": r"\b(?:stands?|stood|lies?|lay|hangs?|hung|sits?|beside)\b",
    "begin with the subject": r"(?:^|[.;:] )(?:of the|of these|whether|on that)\b",
    "write 'different', 'second' or 'new'": r"\banother\b(?! one)|\bother (?:random )?(?:seeds?|weights|settings)\b",
    "write 'with' or 'from'": r"\bby (?:trapezoid|step)\b|\bfrom (?:\S+ ){1,3}on[.,;:]",
    "use a word of today": r"\b(?:noughts?|shall|mend|anew|alas|for ever|be had|of like|wants?)\b",
    "write contain, show, give or support": r"\b(?:says|said|knows|asks|holds?|held)\b",
    "write 'except for' or 'nevertheless'": r"\b(?:but for|all the same)\b",
    "put it before the word that it limits": r"\b(?:only|at most)[.;:]",
    "use one word for one thing": r"\b(?:pictures?|cut-outs?|data sets?|heap|first place|rooms?)\b"
    r"|\bmatri(?:x|ces) of distances\b|\bways? (?:through|down)\b",
}
ALLOWED = {
    "the citation boxes": r"the (?:paper|original|original reproduction) says",
    "a pair": r"\bone\b[^.]{1,60}\banother\b",
    "an abbreviation": r"\bstands? for\b",
    "a fixed phrase": r"\bstep by step\b",
    "a reader's wish": r"\byou want to\b",
    "the name of a module": r"^### \w+$",
    "the name of an argument, as a docstring lists it": r"^ +\w+(?:, \w+)*(?=: )",
}
Words = tuple[int, str]  # a line number, and the text that begins there


def of_markdown(text: str) -> Words:
    """The text without code, equations and the targets of links, in which no word may be changed."""
    for pattern in (r"```.*?```", r"\$\$.*?\$\$", r"`[^`]*`", r"\$[^$]*\$", r"\]\([^)]*\)"):
        text = re.sub(pattern, lambda code: "x" + "\n" * code[0].count("\n"), text, flags=re.DOTALL)
    return 1, text


def of_program(source: str, *kinds: type[ast.AST]) -> Iterator[Words]:
    """Every string inside the nodes of these kinds; of an assert only the message."""
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    words = [node.msg or ast.Pass() if isinstance(node, ast.Assert) else node for node in nodes]
    for part in (part for node in words for part in ast.walk(node)):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.lineno, part.value


def of_library(source: str) -> Iterator[Words]:
    """The docstrings, the comments, and the messages: strings of several words, with an x for each value."""
    tree = ast.parse(source)
    formatted = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {part for node in formatted for part in ast.walk(node) if part is not node}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Constant) and node not in inside:
            parts = node.values if isinstance(node, ast.JoinedStr) else [node]
            values = [part.value if isinstance(part, ast.Constant) else "x" for part in parts]
            text = "".join(value for value in values if isinstance(value, str))
            if " " in text:  # a key or a name has no space
                yield node.lineno, of_markdown(text)[1]
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], of_markdown(token.string.lstrip("# "))[1]


def findings(first: int, text: str) -> list[str]:
    """One line for each place where a pattern is found: the line, the words and what to write."""
    for phrase in ALLOWED.values():
        text = re.sub(phrase, lambda fine: re.sub(r"\S", "x", fine[0]), text, flags=re.IGNORECASE | re.MULTILINE)
    flat = re.sub(r"\n(?=[^\n])", " ", text)  # a sentence may go on in the next line
    hits = [(hit, advice) for advice, pattern in PATTERNS.items() for hit in re.finditer(pattern, flat, re.I | re.M)]
    return [f"{first + text[: hit.start()].count(chr(10))}: {hit[0]!r}: {advice}" for hit, advice in hits]
