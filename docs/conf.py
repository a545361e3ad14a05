"""Makes the documentation site from the Markdown files of this checkout: `make site`.

The navigation is the list of pages in the README. The theme needs no network: it uses the fonts of
the reader's system.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sphinx.application import Sphinx

project = "Chordwise"
author = "The Chordwise authors"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["*.md", "docs/**.md", "benchmarks/*.md", "tests/faults/results.md"]
myst_heading_anchors = 4
suppress_warnings = ["misc.highlighting_failure", "toc.not_included"]
html_theme = "furo"
html_title = "Chordwise"
html_show_sphinx = False
html_copy_source = False
html_show_copyright = False
pygments_style = "friendly"

PARTS = re.compile(r"(?m)^(?:\d+\. )?(?P<title>[A-Z]\w[\w ]*): (?P<links>\[.*)$")
PAGE = re.compile(r"\((\S+\.md)\)")


def navigation(readme: str) -> Iterator[str]:
    """Yield a table of contents for each part of the README's list of pages."""
    for part in PARTS.finditer(readme.partition("\n## Documentation\n")[2]):
        pages = "\n".join(f"/{page}" for page in PAGE.findall(part["links"]))
        yield f"\n```{{toctree}}\n:hidden:\n:caption: {part['title']}\n\n{pages}\n```\n"


def add_navigation(_: Sphinx, page: str, source: list[str]) -> None:
    """Append the navigation to the README, and the decisions to their index."""
    if page == root_doc:
        source[0] += "".join(navigation(source[0]))
    elif page == "docs/decisions/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n[0-9]*\n```\n"


def setup(application: Sphinx) -> None:
    """Add the navigation to the pages as Sphinx reads them."""
    application.connect("source-read", add_navigation)
