"""Strings like a person's data, by kind. Mathematics is full of numbers with dashes, dots and brackets, and those are none.

So a kind is found only where its own mark is there: a country code or a word such as "phone" before a number, a known
beginning of a key, a public address. What the problem gives is not counted; nothing is kept but the kind.
"""

import ipaddress
import re
from collections.abc import Callable

EMAIL = re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}\b")
# RFC 2606: names that are nobody's
NOBODYS = re.compile(
    r"@(?:[\w-]+\.)*(?:example|test|invalid|localhost|domain|email|mail)(?:\.\w+)?$|\.(?:example|test|py|js)$", re.I
)
WITH_COUNTRY = re.compile(
    r"(?<![\w+^*/=-])\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{2,4}(?:[ .-]\d{2,4}){1,4}(?![\d.]*\s*[=+*/^])"
)
WITH_AREA = re.compile(r"(?<![\w)*])\([2-9]\d{2}\) [2-9]\d{2}-\d{4}(?![\d.]|\s*[=+*/^])")
PHONE_WORD = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|fax|whatsapp|call(?: me)?|text me)\b[^\d\n=]{0,20}\Z", re.IGNORECASE
)
GROUPS = re.compile(r"(?<!\d)\(?\d{2,4}\)?[ .-]\d{2,4}[ .-]\d{3,4}(?!\d|\s*[=+*/^])")
BEFORE_GROUPS = 32  # characters that the word before a number is looked for in
KEY_STARTS = ("sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "hf_", "AKIA", "ASIA", "AIza", "xox",
              "glpat-", "eyJ", "-----BEGIN")  # fmt: skip
KEY = re.compile(
    r"(?<![\w-])(?:sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|hf_[A-Za-z]{30,}"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}|AIza[\w-]{35}|xox[baprs]-[\w-]{10,}|glpat-[\w-]{20}"
    r"|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w])|-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----"
)
IP = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)")
ADDRESS = re.compile(
    r"\b\d{1,5} (?:[NSEW]\.? )?(?:[A-Z][a-z]+ ){1,3}(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive"
    r"|Dr|Court|Ct|Way)\.?,[^\n]{1,40}?\b(?:[A-Z]{2} \d{5}(?:-\d{4})?|[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}|\d{5})\b"
)
LEAST_DIGITS = 9  # of a phone number that has a country code


def personal_data(text: str, problem: str = "") -> list[str]:
    """The kinds found in a text and not in its problem, in the order of FINDERS."""
    return [kind for kind, find in FINDERS.items() if any(found.lower() not in problem.lower() for found in find(text))]


def emails(text: str) -> list[str]:
    return [found for found in EMAIL.findall(text) if not NOBODYS.search(found)] if "@" in text else []


def phones(text: str) -> list[str]:
    found = [match[0] for match in WITH_AREA.finditer(text)] if ") " in text else []
    if "+" in text:
        found += [match[0] for match in WITH_COUNTRY.finditer(text) if sum(map(str.isdigit, match[0])) >= LEAST_DIGITS]
    found += [
        match[0]
        for match in GROUPS.finditer(text)
        if PHONE_WORD.search(text[max(match.start() - BEFORE_GROUPS, 0) : match.start()])
    ]
    return found


def keys(text: str) -> list[str]:
    return [match[0] for match in KEY.finditer(text)] if any(start in text for start in KEY_STARTS) else []


def ip_addresses(text: str) -> list[str]:
    """Public ones. Four numbers below ten are a chapter or a version: 1.2.3.4."""
    return [found for found in IP.findall(text) if is_public(found) and any(len(part) > 1 for part in found.split("."))]


def is_public(address: str) -> bool:
    try:
        return ipaddress.IPv4Address(address).is_global
    except ValueError:
        return False


def addresses(text: str) -> list[str]:
    return [match[0] for match in ADDRESS.finditer(text)]


FINDERS: dict[str, Callable[[str], list[str]]] = {
    "email": emails,
    "phone": phones,
    "key": keys,
    "ip": ip_addresses,
    "address": addresses,
}
