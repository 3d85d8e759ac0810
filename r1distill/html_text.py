"""Texts that models wrote, on pages for people: escaped, and with what cannot be seen spelled out."""

import hashlib
import unicodedata
from base64 import b64encode
from html import escape


def shown(text: str) -> str:
    """Escaped for HTML, attributes included, with control and format characters spelled out."""
    return escape("".join(f"⟨U+{ord(one):04X}⟩" if is_hidden(one) else one for one in text))


def is_hidden(character: str) -> bool:
    """Whether a character changes or hides what a person sees: a right-to-left mark, a NUL, an escape sequence."""
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in "\n\t"


def source_hash(source: str) -> str:
    """As a content security policy names the text of an inline script or style."""
    return f"sha256-{b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def policy(script: str, style: str) -> str:
    """The content security policy of a page that runs one inline script and one inline style, and loads nothing."""
    return (
        f"default-src 'none'; script-src '{source_hash(script)}'; style-src '{source_hash(style)}'; "
        "base-uri 'none'; form-action 'none'"
    )
