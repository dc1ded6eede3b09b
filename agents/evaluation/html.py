"""A Markdown report as one HTML file that needs no other: pictures inside, videos linked."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from ..storage.untrusted import check_inside

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 82rem; margin: 2rem auto;
       padding: 0 1.5rem; }
h1, h2 { line-height: 1.2; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; display: block; overflow-x: auto; margin: 1rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { background: #f5f5f5; text-align: left; }
tr:hover td { background: #fafafa; }
img { max-width: 100%; height: auto; margin: .8rem 0; }
code { background: #f2f2f2; padding: .1rem .3rem; border-radius: 3px; }
"""


def write_html(markdown: str, path: Path, title: str) -> None:
    """Write a page.

    Args:
        markdown: with tables; pictures are named by their paths from the page's folder.
        path: of the page.
        title: of the page.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")  # names of bodies may be a stranger's
    tokens = parser.parse(markdown)
    for token in tokens:
        _put_pictures_inside(token, path.parent)
    body = parser.renderer.render(tokens, parser.options, {})
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
    path.write_text(page, encoding="utf-8")


def _put_pictures_inside(token: Token, folder: Path) -> None:
    for child in token.children or []:
        source = str(child.attrs.get("src", ""))
        if child.type == "image" and source.endswith(".png"):
            check_inside(folder / source, folder)
            data = base64.b64encode((folder / source).read_bytes()).decode()
            child.attrs["src"] = f"data:image/png;base64,{data}"
