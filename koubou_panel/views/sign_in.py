"""The small pages before the dashboard: the form for the token, and the word that one is in. They load nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import re

from koubou_panel.views.language import _, speaking

_STYLE = (
    ":root{color-scheme:light dark;font:16px/1.6 system-ui,sans-serif}"
    "body{max-width:34rem;margin:18vh auto 0;padding:0 1.25rem}"
    "h1{font-size:1.1rem;font-weight:600}a{color:LinkText}"
    "form{display:flex;flex-wrap:wrap;gap:.25rem .5rem}label{flex:1 0 100%}"
    "input,button{font:inherit;min-height:44px;padding:0 .75rem;border-radius:8px;border:1px solid GrayText}"
    "input{flex:1 1 12rem;min-width:0}#wrong{flex:1 0 100%;margin:0;color:light-dark(#b3261e,#ffb4ab)}"
    "#wrong:not(:empty)::before{content:'✕ '}"
)
_FORM = """<form id="in" data-odd="{odd}" data-bad="{bad}" data-away="{away}"><label for="token">{label}</label>
<input id="token" type="password" autocomplete="off" required autofocus aria-describedby="wrong">
<button>{button}</button><p id="wrong" role="alert"></p></form><script>{script}</script>"""
# As a program would present it: in a header, which is no part of an address, of a history or of a form that a browser
# would send again. Where that worked, the page is asked for once more, with the cookie.
_SCRIPT = """
const form = document.getElementById("in"), field = document.getElementById("token")
field.oninput = () => field.removeAttribute("aria-invalid")
form.onsubmit = async (event) => {
  event.preventDefault()
  const token = field.value.trim()
  let words = form.dataset.odd
  try {
    if (/^[!-~]+$/.test(token)) {
      const headers = {Authorization: `Bearer ${token}`}
      const reply = await fetch("/login", {method: "POST", headers, cache: "no-store"})
      if (reply.ok) return location.pathname === "/login" ? location.replace("/") : location.reload()
      words = reply.status === 401 ? form.dataset.bad : (await reply.text()).replaceAll("`", "")
    }
  } catch { words = form.dataset.away }
  document.getElementById("wrong").textContent = words
  field.setAttribute("aria-invalid", "true")
  field.select()
}
"""
_PAGE = """<!doctype html>
<html lang="{language}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
{head}<title>{title}</title><style>{style}</style></head>
<body><h1>工房 Koubou Panel</h1><p>{body}</p></body></html>
"""
_REFRESH = '<meta http-equiv="refresh" content="0;url=/">'


def sign_in_page(code: str, message: str, *, language: str, has_form: bool) -> tuple[str, str]:
    """For a browser that is not let in: (the page, its content security policy).

    Args:
        code: what it was refused for, as in `access`.
        message: the same in words, with commands in backticks; said as it is where this has no words of its own.
        language: what the visitor speaks.
        has_form: whether the token can be typed here.

    """
    with speaking(language):
        form = ""
        if has_form and code in ("unauthorized", "bad_code"):
            # A browser leaves a SameSite=Strict cookie out when another site's link led here, and sends it now.
            message = _why(code)
            form = _form()
        ask = html.escape(_("Signed in already?"))
        body = f"{_marked(message)}</p>{form}<p>{ask} {_door()}"
        return _page(_("Sign in"), body, language=language, has_form=bool(form))


def signed_in_page(language: str) -> tuple[str, str]:
    """For a browser that has been let in, which goes on to the dashboard: (the page, its content security policy)."""
    with speaking(language):
        said = html.escape(_("Signed in."))
        return _page(_("Signed in"), f"{said} {_door()}", language=language, head=_REFRESH)


def _why(code: str) -> str:
    if code == "bad_code":
        return _(
            "This link was used already or is older than ten minutes: run `koubou status` for a new one."
        )
    return _("Access needs the token: open the link that `koubou status` prints, or type the token here.")


def _form() -> str:
    words = {
        "odd": _("This is no token: it has letters and digits only."),
        "bad": _("This token is not the workshop's: `koubou token` prints the present one.").replace("`", ""),
        "away": _("The dashboard does not answer. Try again when it runs."),
        "button": _("Sign in"),
    }
    said = {name: html.escape(text) for name, text in words.items()}
    return _FORM.format(**said, label=_marked(_("The token, as `koubou token` prints it")), script=_SCRIPT)


def _door() -> str:
    words = html.escape(_("Open the dashboard"))
    return f'<a href="/">{words}</a>'


def _marked(text: str) -> str:
    """`text` as HTML, with what stands in backticks as code."""
    return re.sub(r"`(.+?)`", r"<code>\1</code>", html.escape(text))


def _page(title: str, body: str, *, language: str, head: str = "", has_form: bool = False) -> tuple[str, str]:
    policy = f"default-src 'none'; style-src {_named(_STYLE)}; base-uri 'none'; form-action 'none'"
    if has_form:
        policy += f"; script-src {_named(_SCRIPT)}; connect-src 'self'"
    text = _PAGE.format(language=language, head=head, title=title, body=body, style=_STYLE)
    return text, policy + "; frame-ancestors 'self'"


def _named(text: str) -> str:
    """How a policy names a script or a style that stands in the page."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
