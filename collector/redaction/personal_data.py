"""Personal data in a text: addresses and numbers that lead to a person.

A cheap pattern finds candidates, Presidio's recognisers decide on them: they know check digits,
number plans and forms of addresses. They are called one by one, without a language model, and are
loaded with the first candidate, because importing Presidio takes seconds.
"""

import ipaddress
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from collector.redaction.spans import Found

_PHONE_REGIONS = ("US", "GB", "DE", "FR", "IN", "BR", "AU", "JP")
"""Whose national forms are known; the international form works for every country."""


class _Kind(NamedTuple):
    name: str
    candidate: re.Pattern[str]
    accepts: Callable[[re.Match[str]], bool]


def find_personal_data(text: str) -> Iterator[Found]:
    """Where ``text`` holds personal data."""
    if "@" in text:
        yield from _find(text, _EMAIL)
    if _HAS_DIGITS.search(text) is None:
        return
    for kind in _NUMBERS:
        yield from _find(text, kind)


def _find(text: str, kind: _Kind) -> Iterator[Found]:
    for match in kind.candidate.finditer(text):
        if kind.accepts(match):
            yield Found(match.start(), match.end(), kind.name)


def _is_email(match: re.Match[str]) -> bool:
    return _recognises("EmailRecognizer", match[0])


def _is_iban(match: re.Match[str]) -> bool:
    return _recognises("IbanRecognizer", match[0].upper())


def _is_card(match: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", match[0])
    if len(digits) > 17:
        # Presidio stops at 17 digits; UnionPay and Maestro go to 19.
        return digits[0] in "3456" and _luhn(digits)
    return _recognises("CreditCardRecognizer", match[0])


def _luhn(digits: str) -> bool:
    """Check digit of ISO/IEC 7812-1, annex B."""
    doubled = sum(sum(divmod(int(d) * 2, 10)) for d in digits[-2::-2])
    return (doubled + sum(int(d) for d in digits[-1::-2])) % 10 == 0


def _is_phone(match: re.Match[str]) -> bool:
    text = match[0]
    if _DATE_LIKE.fullmatch(text):
        return False
    is_marked = text.startswith(("+", "00")) or bool(_PHONE_WORD.search(_before(match)))
    # Digits in a row, or in groups that no number plan has, are order and tracking numbers.
    if not is_marked and not _NATIONAL.fullmatch(text):
        return False
    return _recognises("PhoneRecognizer", f"+{text[2:]}" if text.startswith("00") else text)


def _is_ip(match: re.Match[str]) -> bool:
    if _VERSION_WORD.search(_before(match)) or not any(c.isdigit() for c in match[0]):
        return False
    try:
        # Addresses inside a network say nothing about a person.
        is_global = ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return False
    return is_global and _recognises("IpRecognizer", match[0])


def _is_ssn(match: re.Match[str]) -> bool:
    if "-" not in match[0] and not _SSN_WORD.search(_before(match)):
        return False
    return _recognises("UsSsnRecognizer", match[0])


def _is_wallet(match: re.Match[str]) -> bool:
    # Presidio knows Bitcoin's three forms; Ethereum's has a check sum only in mixed case.
    return match[0].startswith("0x") or _recognises("CryptoRecognizer", match[0])


def _before(match: re.Match[str]) -> str:
    return match.string[max(0, match.start() - 30) : match.start()]


@lru_cache(maxsize=4_096)
def _recognises(recognizer: str, text: str) -> bool:
    """Whether Presidio finds the whole of ``text``, give or take a bracket."""
    results = _recognizers()[recognizer].analyze(text, entities=[], nlp_artifacts=None)
    return any(r.end - r.start >= len(text) - 1 for r in results if r.score > 0.1)


def _ends_in_letters(address: str) -> bool:
    return address.rpartition(".")[2].isalpha()


def load_recognizers() -> None:
    """Import Presidio now, and without torch and transformers, which it takes along where it can.

    Nothing here needs them, and they cost ten seconds and 300 MB. For a process that has no use for
    them either: while this runs, they cannot be imported.
    """
    hidden = [name for name in ("torch", "transformers") if name not in sys.modules]
    sys.modules |= dict.fromkeys(hidden)  # type: ignore[arg-type]
    try:
        _recognizers()
    finally:
        for name in hidden:
            del sys.modules[name]


@cache
def _recognizers() -> dict[str, Any]:
    from presidio_analyzer import predefined_recognizers as known

    email = known.EmailRecognizer()
    # Presidio asks the list of public suffixes and fetches that from the network; addresses inside
    # a company are personal too.
    email.validate_result = _ends_in_letters
    recognizers = (
        email,
        known.PhoneRecognizer(supported_regions=_PHONE_REGIONS),
        known.CreditCardRecognizer(),
        known.IbanRecognizer(),
        known.IpRecognizer(),
        known.UsSsnRecognizer(),
        known.CryptoRecognizer(),
    )
    return {type(recognizer).__name__: recognizer for recognizer in recognizers}


_HAS_DIGITS = re.compile(r"\d[\d\s:.()/A-Za-z-]{5}")
_DATE_LIKE = re.compile(r"(?:19|20)\d\d[-./]\d\d?[-./]\d\d?.*|\d\d?[-./]\d\d?[-./](?:19|20)\d\d.*")
_NATIONAL = re.compile(
    r"\(?[2-9]\d{2}\)?[ .-]{1,2}\d{3}[ .-]\d{4}|\(?0[1-9]\d{1,3}\)?[ /-]\d{3,4}[ -]?\d{3,5}"
    r"|0[1-9](?:[ .-]\d{2}){4}"
)
_PHONE_WORD = re.compile(
    r"(?i)\b(?:phone|mobile|cell|tel|fax|call|ring|dial|whatsapp|sms|telefon|handy)\b[^\d\n]{0,15}$"
)
_VERSION_WORD = re.compile(r"(?i)\b(?:v|version|release|build|firmware|driver)\.? ?$")
_SSN_WORD = re.compile(r"(?i)\b(?:ssn|social security)\b[^\n]{0,20}$")
_EMAIL = _Kind(
    "EMAIL",
    re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b"),
    _is_email,
)
_NUMBERS = (
    _Kind(
        "IBAN",
        re.compile(r"(?i)\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?\b"),
        _is_iban,
    ),
    _Kind("WALLET", re.compile(r"\b(?:0x[0-9a-fA-F]{40}|(?:bc1|[13])\w{25,59})\b"), _is_wallet),
    _Kind("CARD", re.compile(r"(?<![\w.+])\d(?:[ -]?\d){12,18}(?!\w)"), _is_card),
    _Kind("SSN", re.compile(r"(?<![\w.-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])"), _is_ssn),
    _Kind(
        "IP",
        re.compile(
            r"(?<![\w.:-])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)"
            r"|(?=[0-9a-fA-F]{0,4}:)[0-9a-fA-F:]{6,39}(?![\w:]))"
        ),
        _is_ip,
    ),
    _Kind(
        "PHONE",
        re.compile(
            r"(?:(?<![\w+])\(?\+|(?<![\w+.,/-])(?:\(|00)?)"
            r"\d(?:[ .()/\-]{0,3}\d){6,14}(?!\w|[.,-]\d)"
        ),
        _is_phone,
    ),
)
"""In order of precedence: what is one of the first is none of the later."""
