"""Text that strangers or models wrote, as markup that cannot act: Markdown in, a small set of inert elements out.

Nothing in the result runs, loads or leads anywhere: no script, no style, no picture, no link. Pictures and links are shown
as words beside their address, so that a rater sees what the answer pointed at. Two independent steps make it so: the
Markdown reader is told to treat HTML as text, and what it writes passes an allow-list.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

LONGEST = 60_000  # characters read as Markdown; a longer text is shown as plain text, whole
TAGS = {
    *("p", "br", "hr", "h3", "h4", "h5", "em", "strong", "s", "code", "pre", "blockquote", "ul", "ol", "li"),
    *("table", "thead", "tbody", "tr", "th", "td", "span", "div"),
}
CLASSES = {  # element -> classes that our own rules below write
    "span": {"link", "address"},
    "div": {"wide"},
    "h3": {"m1"},
    "h4": {"m2"},
    "h5": {"m3"},
    "pre": {"plain"},
}
ATTRIBUTES = {"ol": {"start"}, "pre": {"tabindex"}, "div": {"tabindex"}}


def markup(text: str) -> str:
    """Markdown as inert HTML. The same text always gives the same markup; results are remembered."""
    return _markup(text)


@functools.lru_cache(maxsize=4096)
def _markup(text: str) -> str:
    text = _printable(text)
    if len(text) > LONGEST:
        return plain(text)
    try:
        html = _reader().render(text)
    except (ValueError, RecursionError, IndexError):  # a text no reader of Markdown can follow is still a text
        return plain(text)
    return clean(html)


def plain(text: str) -> str:
    """A text as it is, line breaks kept."""
    return f'<pre class="plain" tabindex="0">{escape(_printable(text))}</pre>'


def clean(html: str) -> str:
    """What of `html` is on the allow-list. The second of two walls; the first is the reader of Markdown."""
    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        url_schemes=set(),
        strip_comments=True,
        link_rel=None,
        clean_content_tags={"script", "style", "iframe", "noscript", "template", "svg", "math"},
    )


@functools.cache
def _reader() -> MarkdownIt:
    """CommonMark with tables and strikethrough; HTML is text, addresses are not made into links."""
    reader = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True, "maxNesting": 40})
    reader.enable(["table", "strikethrough"])
    reader.validateLink = lambda url: True  # type: ignore[method-assign]  # no address becomes a link, so all may be read
    for name, rule in RULES.items():
        reader.add_render_rule(name, rule)
    return reader


Tokens = Sequence[Token]


def _link_open(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    return '<span class="link">'


def _link_close(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    """The words, then the address in brackets, unless the words are the address."""
    depth, start = 0, index
    while start >= 0:
        depth += (tokens[start].type == "link_close") - (tokens[start].type == "link_open")
        if depth == 0:
            break
        start -= 1
    href = str(tokens[start].attrGet("href") or "")
    words = "".join(token.content for token in tokens[start + 1 : index])
    return "</span>" + ("" if words == href else f' <span class="address">({escape(href)})</span>')


def _image(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    words = render.renderInlineAsText(token.children, options, env) if token.children else ""
    address = str(token.attrGet("src") or "")
    return f'<span class="link">[image: {escape(words)}]</span> <span class="address">({escape(address)})</span>'


def _heading(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    """The headings of a text start at level 3, below those of the page that shows it."""
    level = min(3, int(tokens[index].tag[1:]))
    return f'<h{level + 2} class="m{level}">' if tokens[index].nesting == 1 else f"</h{level + 2}>\n"


def _code(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    """A block of code scrolls sideways on its own, so it takes the focus of the keyboard."""
    return f'<pre tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'


def _table(render: RendererHTML, tokens: Tokens, index: int, options: Any, env: Any) -> str:
    return '<div class="wide" tabindex="0"><table>\n' if tokens[index].nesting == 1 else "</table></div>\n"


RULES: dict[str, Any] = {
    "link_open": _link_open,
    "link_close": _link_close,
    "image": _image,
    "heading_open": _heading,
    "heading_close": _heading,
    "fence": _code,
    "code_block": _code,
    "table_open": _table,
    "table_close": _table,
}


def _printable(text: str) -> str:
    """Without control characters and without those that reverse the direction of what follows (they can hide words)."""
    return text.encode("utf-8", "replace").decode().translate(_HIDDEN)  # half a surrogate pair becomes "?"


_HIDDEN = {
    **dict.fromkeys((*range(0, 9), 11, 12, *range(14, 32), 127), "�"),
    **dict.fromkeys((*range(8234, 8239), *range(8294, 8298)), "�"),
}
