"""Every fenced block of the documentation and of README.md, as data.

The info string says what is done with a block: its language, then words. ``not-run:`` and a reason
leave it alone, and ``test_blocks.py`` lists those.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "docs"
#: How a page calls the interpreter.
PYTHONS = ("python", ".venv/bin/python")


@dataclass(frozen=True)
class Block:
    """One fenced block.

    :param file: relative to the repository.
    :param line: of the fence.
    :param words: what stands behind the language.
    :param reason: why it is not run, or empty.
    """

    file: str
    line: int
    language: str
    words: tuple[str, ...]
    reason: str
    text: str

    @property
    def name(self) -> str:
        """Where it stands, as an editor takes it."""
        return f"{self.file}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is executed in a process of its own, with servers beside it."""
        if self.reason:
            return False
        return self.language == "python" or (self.language == "console" and "run" in self.words)


def pages() -> list[Path]:
    """README.md, and every page of the documentation."""
    found = sorted(page for page in DOCS.rglob("*.md") if "_build" not in page.parts)
    return [REPOSITORY / "README.md", *found]


@cache
def all_blocks() -> tuple[Block, ...]:
    """The blocks of all pages, in their order; directives are Sphinx's to build."""
    return tuple(block for page in pages() for block in _blocks_of(page))


def _blocks_of(page: Path) -> Iterator[Block]:
    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type == "code_block":
            raise ValueError(f"{page}:{token.map}: an indented block says nothing of its language")
        if token.type != "fence" or token.info.startswith("{"):
            continue
        assert token.map is not None
        info, _, reason = token.info.partition("not-run:")
        language, *words = info.split() or ["tree"]
        file = str(page.relative_to(REPOSITORY))
        yield Block(file, token.map[0] + 1, language, tuple(words), reason.strip(), token.content)


def commands(block: Block) -> list[str]:
    """The command lines of a console block, without comments and with continued lines joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line[2:].partition("  #")[0].strip() for line in lines if line.startswith("$ ")]
