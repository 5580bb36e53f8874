"""Numbers as people write them, with thousands separators, a comma before the fraction or in parentheses, and the
command that makes plain ones of them."""

from __future__ import annotations

import re
from collections.abc import Iterator

_GROUPS = r"(?:\d{{1,3}}(?:{0}\d{{3}})+|\d+)(?:{1}\d+)?"
_WITH_COMMA, _WITH_POINT = _GROUPS.format(r"\.", ","), _GROUPS.format(",", r"\.")
_TO_POINT, _WITHOUT_COMMAS = "tr{.}{}dr =~ tr{,}{.}r", "tr{,}{}dr"
_WRITTEN = re.compile(r"(?P<open>\()?(?P<sign>[-+])?(?P<digits>[\d.,]+)(?(open)\))", re.ASCII)


def plain_number(text: str) -> str | None:
    """Return the number that a text certainly is, such as -1234.50; None where that is not certain, as of `1,234`."""
    found = _WRITTEN.fullmatch(text)
    is_comma = _is_comma_before_fraction(found["digits"]) if found else None
    if found is None or is_comma is None or (found["open"] and found["sign"]):
        return None
    digits = found["digits"].replace(".", "").replace(",", ".") if is_comma else found["digits"].replace(",", "")
    return f"{'-' if found['open'] else found['sign'] or ''}{digits}"


def _is_comma_before_fraction(digits: str) -> bool | None:
    """Return whether digits have a comma, and not a point, before their fraction; None where they do not tell."""
    if re.fullmatch(r"\d{1,3},\d{3}", digits):
        return None
    if re.fullmatch(_WITH_POINT, digits):
        return False
    return True if re.fullmatch(_WITH_COMMA, digits) else None


def rewriting(text: str, delimiter: str) -> str:
    """Return the command that makes plain numbers of all cells of a table that are written as this text, which
    certainly is a number; `{file}` in it stands for the name of the file."""
    return f"perl -pe '{'; '.join(_steps(text, delimiter))}' {{file}}"


def _steps(text: str, delimiter: str) -> Iterator[str]:
    apart = r"\t" if delimiter == "\t" else re.escape(delimiter).replace("/", r"\/")
    before, after = f'(?<![^{apart}"])', rf'(?![^{apart}"\r\n])'
    if not re.fullmatch(r"\d+(\.\d*)?|\.\d+", text.strip("()+-")):
        # Between commas only a cell in quotes has a comma.
        begin, end = ('(?<=")', '(?=")') if delimiter == "," else (before, after)
        is_comma = _is_comma_before_fraction(text.strip("()+-"))
        shape, change = (_WITH_COMMA, _TO_POINT) if is_comma else (_WITH_POINT, _WITHOUT_COMMAS)
        yield rf"s/{begin}\(?[-+]?{shape}\)?{end}/$& =~ {change}/ge"
    yield rf"s/{before}\(([\d.]+)\){after}/-$1/g"
