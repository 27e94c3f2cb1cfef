"""The English texts of the software and its pages, sentence by sentence, and what is hard to read in them.

``python -m tests.support.plain_english`` lists every violation. With names of catalogues (``messages``, ``README.md``)
or paths as arguments, it lists only theirs.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import polib

from tests.conftest import ROOT
from tests.long.conformance.command_line import every_command

MOST_WORDS: Final = 25
"""Words in one sentence of a message, a help text or a setting. A placeholder counts as one."""
MOST_WORDS_OF_A_PAGE: Final = 40
"""Words in one sentence of a page."""

# The automated readability index: about the years of school that a text requires. (4.71 characters / word + 0.5 words /
# sentence - 21.43; Smith and Senter 1967.) Technical words are long, so
# a page of plain sentences has 4 to 11; a message has many placeholders, each of one letter here.
MOST_ARI: Final = {"messages": 4.5, "help": 6.0, "settings": 6.0, "browser": 4.0}
MOST_ARI_OF_A_PAGE: Final = 11.0

CODE: Final = ("appliance", "training", "export")
SPOKEN: Final = {"Change", "Check", "Finding", "Reason", "echo", "mind", "ok", "problem", "warning"}
"""Functions and values other than errors with text that a person reads, even if it is not a whole sentence."""
PAGES: Final = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NOT_HELD: Final = {
    "docs/glossary.md": "it lists the words that are not used",
    "docs/command-line.md": "it is made of the help texts, which are looked at where they stand",
    "docs/field-cases.md": "it quotes public reports of others",
}

BANNED: Final = {
    # word or phrase, as a regular expression: what to write instead
    r"prov(?:e[sdn]?|ing|able|en)": "check, verify, show",
    r"proofs?": "check, self-test",
    r"(?:holds?|held|holding) (?:[^\W\d_]+ ){0,4}(?:to its|to their|to the|to a|against)": "check, compare",
    r"put to the test": "test",
    r"judg(?:e[sd]?|ing)": "check",
    r"tell(?:s|ing)?|told|untold": "say, show, list, name; distinguish",
    r"com(?:e|es|ing) to an end|came to an end": "finish, end",
    r"defects? of ours|our defects?|our fault": "internal error (please report it)",
    r"outranks?": "takes precedence over",
    r"afresh": "again",
    r"never c(?:a|o)me|(?:is|are) not there(?: yet)?": "not received, missing",
    r"at rest|rests|comes? to rest|settles|settled": "unchanged for N seconds",
    r"in hand": "being processed",
    r"meets?|met on": "reads (a file), fulfils (a condition)",
    r"becam?e?(?:s|ing)? of": "status, result",
    r"worth": "performance (of a model)",
    r"(?<!by )(?<!than )(?<!than by )(?<!beat )(?<!beats )(?<!at )(?<!of )chances?(?! alone)": "probability",
    r"somebody|someone|nobody|whoever|whomever|anybody": "people, person, operator, user; no one",
    r"(?:other|different|several|two|many) hands": "persons, readers",
    r"drawings?": "contour, region",
    r"answer files?": "report",
    r"(?:give|gives|given|gave|giving) back": "delete, remove",
    r"forgets?|forgot|forgotten|lets? go": "delete, remove",
    r"(?:hand|hands|handed|pass|passes|passed) on": "copy, move, send",
    r"lack(?:s|ed|ing)?|wanting": "missing",
    r"so do(?:es)?|and so (?:is|are)": "also",
    r"doubled": "twice, two copies",
    r"(?:for|of|by|with) which|of whom": "two sentences",
    r"of (?:its|their|your|our) own": "own, separate",
    r"whatever|whichever|wherever|whenever": "if, when, where",
    r"lest|hence|thus|thereof|thereby|therein|whence": "so that, so",
    r"be it|be they|need be|would that": "a plain verb",
    r"journeys?|doors?|alive|sleeps?|houses?": "the plain word",
    r"comes? up|came up": "start",
}
EXCEPTIONS: Final = {
    # found word, in lower case: the words around it that make it right
    "chance": (
        "0 is chance", "0.5 is chance", "0.50 is chance",
        "(CHANCE, 99LUNGSTAGE", "given in CHANCE",  # the name of a code
        "Chance that the answer is right (research",  # the meaning of a code, which reports of older releases have
        "Chance that the predicted class is right",
    ),
    "drawing": ("drawing library",),
    "forgotten": ("be forgotten",),  # by a person
    "meet": ("meet them", "meet the condition"),
    "meets": ("meets the condition",),
    "nobody": ("as nobody", "user nobody"),  # the Unix user
    "rests": ("rests on",),
    "worth": ("worth_not_shown",),
}  # fmt: skip


OF_THE_GLOSSARY: Final = (
    "annotation", "artefact", "backend", "customer", "drop folder", "error code", "exam", "in-distribution",
    "obsolete", "output folder", "previous version", "radiomics settings", "result file", "sandbox", "slave",
    "structure file", "test case", "ticket", "warm-up", "watchdog",
)  # fmt: skip
"""Words of the glossary's last column that are always wrong. Only a reader can decide on the other words."""


@dataclass(frozen=True)
class Text:
    """One text as a reader sees it, with a single X for each placeholder."""

    where: str
    text: str
    counts: bool = True
    """Whether it counts for the readability index; cells of tables do not."""


@dataclass(frozen=True)
class Violation:
    """A text that is hard to read, and its place."""

    where: str
    what: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}: {self.sentence}"


# --- texts of the code ---------------------------------------------------------------------------------------------


_FORMER: Final = ROOT / "appliance/report/former.py"  # sentences of earlier releases, which cannot change


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in (
        *(one for room in CODE for one in sorted((ROOT / room).rglob("*.py"))),
        ROOT / "lungstage/__init__.py",
    ):
        if path != _FORMER:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def _words_of(node: ast.AST) -> str | None:
    """Return the text of a literal, with X for each placeholder."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(str(one.value) if isinstance(one, ast.Constant) else "X" for one in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _words_of(node.left), _words_of(node.right)
        return None if left is None and right is None else f"{left or 'X'}{right or 'X'}"
    return None


def _name(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


@cache
def _raisers() -> frozenset[str]:
    """Return the names of all error classes, of functions that return or raise one, and of :data:`SPOKEN`."""
    bases: dict[str, set[str]] = {}
    returns: dict[str, str] = {}
    for _, tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases.setdefault(node.name, set()).update(map(_name, node.bases))
            elif isinstance(node, ast.FunctionDef) and node.returns is not None:
                returns[node.name] = ast.unparse(node.returns)
    errors = {"Exception", "ValueError", "TypeError", "RuntimeError", "OSError", "KeyError", "BadParameter"}
    while more := {name for name, above in bases.items() if above & errors} - errors:
        errors |= more
    return frozenset(SPOKEN | errors | {name for name, what in returns.items() if what in errors or what == "NoReturn"})


_LOOKS_LIKE_A_SENTENCE = re.compile(r"['\"(]?(?:[A-Z0-9]|X\b).*[a-z]{2}.*[.!?](?:['\")]|\s|$)", re.DOTALL)
_NO_PROSE = re.compile(
    r"(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|PRAGMA|BEGIN|WITH) |\s*[<{#\[\\^(]|.*(?:\\[wdbs]|\(\?|;\n|=\n)|\w+://",
    re.DOTALL,
)


def _is_prose(text: str) -> bool:
    return len(text.split()) >= 4 and bool(_LOOKS_LIKE_A_SENTENCE.match(text)) and not _NO_PROSE.match(text)


@cache
def messages() -> tuple[Text, ...]:
    """Return every sentence of the code except docstrings, help and settings, and every text of an error."""
    found: list[Text] = []
    for path, tree in _sources():
        skipped = _docstrings(tree) | _of_options(tree)
        parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
        given = {
            id(one)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and _name(node.func) in _raisers()
            for one in (*node.args, *(keyword.value for keyword in node.keywords))
        }
        below = {id(one) for node in ast.walk(tree) if isinstance(node, ast.BinOp) for one in (node.left, node.right)}
        for node in ast.walk(tree):
            if id(node) in skipped or id(node) in parts or id(node) in below:
                continue
            text = _words_of(node) if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) else None
            if text and (_is_prose(text) or (id(node) in given and len(text.split()) >= 3 and "\\" not in text)):
                found.append(Text(f"{path.relative_to(ROOT)}:{node.lineno}", _plain(re.sub(r"\{\w*\}", "X", text))))  # type: ignore[attr-defined]
    return tuple(found)


def _docstrings(tree: ast.Module) -> set[int]:
    """Return strings that are statements: docstrings, also of attributes."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


_OPTIONS: Final = ("help", "description", "metavar")


def _of_options(tree: ast.Module) -> set[int]:
    """Return strings of ``help=`` and ``description=``, which are separate catalogues."""
    return {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.keyword) and one.arg in _OPTIONS}


@cache
def settings() -> tuple[Text, ...]:
    """Return the descriptions of the settings: ``Field(description=...)``."""
    return tuple(
        Text(f"{path.relative_to(ROOT)}:{one.value.lineno}", _plain(text))
        for path, tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and _name(node.func) == "Field"
        for one in node.keywords
        if one.arg == "description" and (text := _words_of(one.value))
    )


@cache
def help_texts() -> tuple[Text, ...]:
    """Return the help of every command and option, as it is shown."""
    found: dict[str, Text] = {}  # an option that several commands share is checked once
    for name, command in every_command():
        code = getattr(inspect.unwrap(command.callback), "__code__", None) if command.callback else None
        where = f"{Path(code.co_filename).resolve().relative_to(ROOT)}:{code.co_firstlineno}" if code else name
        for title, text in ((name, command.help), *((f"{name} {one.opts[-1]}", one.help) for one in command.params)):
            for paragraph in re.split(r"\n\s*\n", text or ""):
                found.setdefault(paragraph, Text(f"{where} ({title})", _plain(paragraph)))
    return tuple(text for paragraph, text in found.items() if paragraph)


@cache
def browser() -> tuple[Text, ...]:
    """Return the English of the browser's pages, of the result page, and of the translated sentences."""
    found: dict[str, Text] = {}
    for room in ("page", "report"):
        folder = ROOT / "appliance" / room / "languages"
        for path in (folder / "en.po", folder / "sentences" / "de.po"):
            if path.is_file():
                for entry in polib.pofile(str(path)):
                    text = entry.msgid if path.parent.name == "sentences" else entry.msgstr
                    for one in (text, *entry.msgstr_plural.values()):
                        if one:
                            where = f"{path.relative_to(ROOT)}:{entry.linenum}"
                            found.setdefault(one, Text(where, _plain(re.sub(r"\{[^}]*\}", "X", one))))
    return tuple(found.values())


# --- pages ---------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"^ *```")
_ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")


@cache
def page(path: Path) -> tuple[Text, ...]:
    """Return the prose of a page: paragraphs, items, headings, and cells of tables, which the index leaves out."""
    found: list[Text] = []
    block: list[str] = []
    begun, fenced, where = 1, False, path.relative_to(ROOT)

    def end() -> None:
        if block:
            found.append(Text(f"{where}:{begun}", _plain(" ".join(block))))
            block.clear()

    text = re.sub(
        r"<!--.*?-->", lambda comment: "\n" * comment[0].count("\n"), path.read_text(encoding="utf-8"), flags=re.S
    )
    for number, line in enumerate(text.splitlines(), 1):
        if _FENCE.match(line):
            fenced = not fenced
            end()
        elif fenced:
            continue
        elif not line.strip() or line.startswith(("![", ":::", "<", "#", "|", "[")):
            end()
            if line.startswith("#"):
                found.append(Text(f"{where}:{number}", _plain(line.lstrip("# ")), counts=False))
            elif line.startswith("|"):
                cells = (_plain(cell) for cell in re.split(r"(?<!\\)\|", line))
                found += [
                    Text(f"{where}:{number}", cell, counts=False) for cell in cells if re.search(r"[a-z]{2}", cell)
                ]
            elif line.startswith("[") and not line.startswith("[!["):
                begun, block = number, [line]
        else:
            if _ITEM.match(line):
                end()
            if not block:
                begun = number
            block.append(_ITEM.sub("", line).lstrip("> ").strip())
    end()
    return tuple(found)


def _plain(text: str) -> str:
    """Return a text without its markup; code becomes one word."""
    text = re.sub(r"``.*?``|`[^`]*`", "X", text)
    text = re.sub(r"X(?:, X)+", "X", text)  # a list of names reads as one
    text = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"https?://\S+|\b(?:X[./:_-])+X?\b", "X", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*]*\S)\*(?![\w*])", r"\1", re.sub(r"\*\*|<[^>]+>", "", text))
    return " ".join(text.split())


# --- texts that are hard to read -----------------------------------------------------------------------------------

_ABBREVIATED = r"(?<!\be\.g\.)(?<!\bi\.e\.)(?<!\bal\.)(?<!\bvs\.)(?<!\bcf\.)(?<!\bno\.)(?<!\bpp\.)(?<!\bapprox\.)"
_END = re.compile(_ABBREVIATED + r"(?<=[.!?…])[)'\"”]*\s+(?=[('\"“]*[A-Z0-9])")

_FILLED = re.compile(r"\bX(?= ?(?:[A-Z][a-z]+|A) [a-z])")


def sentences(text: str) -> list[str]:
    """Return the sentences of a text; a placeholder before a capital letter may contain the end of one."""
    return [one for one in _END.split(_FILLED.sub("X. ", text)) if one.strip()]


def words(sentence: str) -> list[str]:
    """Return the words of a sentence."""
    return [word for word in re.split(r"[\s/]+|(?<=\w)[—–](?=\w)", sentence) if re.search(r"\w", word)]


_PATTERNS = {re.compile(rf"(?<![\w-])(?:{pattern})(?![\w-])", re.IGNORECASE): say for pattern, say in BANNED.items()}


def banned(text: str) -> Iterator[tuple[str, str]]:
    """Yield each banned word or phrase in a text, and what to write instead."""
    for pattern, instead in _PATTERNS.items():
        for found in pattern.finditer(text):
            around = text[max(0, found.start() - 40) : found.end() + 40]
            if not any(right in around for right in EXCEPTIONS.get(found[0].lower(), ())):
                yield found[0], instead


@cache
def glossary() -> dict[str, str]:
    """Return the words that the glossary bans, each with the word to use instead."""
    table = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+?) \|[^|]+\|[^|]*\| ([^|]+?) \|$", table, re.MULTILINE)
    return {word: used for used, others in rows for word in re.split(r", (?![^(]*\))", others)}


def violations(texts: Iterable[Text], most_words: int) -> list[Violation]:
    """Return sentences that are too long, and banned words."""
    found = []
    others = {word: re.compile(rf"(?<![\w-]){word}s?(?![\w-])", re.IGNORECASE) for word in OF_THE_GLOSSARY}
    for text in texts:
        for sentence in sentences(text.text):
            if (count := len(words(sentence))) > most_words and "doi:" not in sentence:  # a citation may be long
                found.append(Violation(text.where, f"{count} words", sentence))
            found += [Violation(text.where, f"'{word}' ({instead})", sentence) for word, instead in banned(sentence)]
            found += [
                Violation(text.where, f"'{word}' ({glossary().get(word, '')}, by the glossary)", sentence)
                for word, pattern in others.items()
                if pattern.search(sentence)
            ]
    return found


def readability(texts: Iterable[Text]) -> float:
    """Return the automated readability index of the texts; 0 if there are too few words."""
    parts = [words(sentence) for text in texts if text.counts for sentence in sentences(text.text)]
    every = [word for part in parts for word in part]
    if len(every) < 100:
        return 0.0
    characters = sum(len(re.findall(r"\w", word)) for word in every)
    return 4.71 * characters / len(every) + 0.5 * len(every) / len(parts) - 21.43


CATALOGUES: Final = {"messages": messages, "help": help_texts, "settings": settings, "browser": browser}


def main(names: list[str]) -> int:
    """Print every violation, and the index of each catalogue and page."""
    count = 0
    every = [(name, collect(), MOST_WORDS, MOST_ARI[name]) for name, collect in CATALOGUES.items()]
    pages = [path for path in PAGES if path.is_file() and str(path.relative_to(ROOT)) not in NOT_HELD]
    every += [(str(path.relative_to(ROOT)), page(path), MOST_WORDS_OF_A_PAGE, MOST_ARI_OF_A_PAGE) for path in pages]
    for name, texts, most_words, most_index in every:
        listed = [one for one in texts if not names or name in names or one.where.startswith(tuple(names))]
        if not listed:
            continue
        found, index = violations(listed, most_words), readability(listed)
        print(
            f"== {name}: {len(listed)} texts, {len(found)} violations, readability {index:.1f} (at most {most_index:g})"
        )
        print(*found, sep="\n", end="\n\n" if found else "")
        count += len(found)
    return min(count, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
