"""Records in other notations than JSON, of other languages and of databases, and what to type to make JSON of them.

Each answer is a sentence and a hint.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pik.inputs.advice import Advice, Option, Options, Read, piped

Shape = tuple[str, Advice]

_ROWS = 20
"""Lines that are looked at, mostly."""

_RULED = re.compile(r"[ |+:]*-{3,}[-+|: ]*")
_BOX = ("┌", "╭", "│", "╔")

_EXPORTS = "psql --csv, sqlite3 -csv -header, duckdb -csv, or SQL*Plus after SET MARKUP CSV ON"
_OF_MYSQL = (
    "mysql --batch writes rows that are read with ",
    Options((Option("quote", "none"), Option("escape", "\\"), Option("null", "NULL"))),
)
"""Its text NULL cannot be told from a missing value."""

_JSON_ALONE = Advice(
    "the text alone: psql -At, mysql -N --raw, or sqlcmd -y 0, which cuts no lines, after SET NOCOUNT ON"
)

_OF_YQ = (
    "numbers are read as YAML has them, so that 0123 and 1.10 change",
    "the yq without an option -o is another program: yq -c '.[]'",
)

_TITLE = 10
"""Lines about a drawn table before it, at most."""


def drawn_table(filled: Sequence[str]) -> Shape | None:
    """Recognize a table as the shells of databases draw it."""
    ruled = [number for number, line in enumerate(filled[:_TITLE]) if _RULED.fullmatch(line.rstrip())]
    is_drawn = ruled and (ruled[0] < 2 or all(line.startswith("|") for line in filled[ruled[0] + 1 : ruled[0] + 2]))
    if is_drawn and any(_is_json_below(filled[rule : rule + 2]) for rule in ruled):
        return "JSON in a table drawn for people", _JSON_ALONE
    if filled and (filled[0].startswith(_BOX) or is_drawn):
        return "a table drawn for people", Advice(f"its rows as CSV: {_EXPORTS}, as TSV: mysql --batch", _OF_MYSQL)
    return None


def _is_json_below(lines: Sequence[str]) -> bool:
    """Return whether the rule of a table has one column, and below it an object or an array of JSON begins."""
    rule, below = (*lines, "")[:2]
    begin = below.lstrip(" |")
    return len(rule.strip(" +|").split("+")) == 1 and " " not in rule.strip() and bool(_JSON_BEGIN.match(begin))


_JSON_BEGIN = re.compile(r"""[\[{]\s*(?:[\[{"+]|$)""")


_PYTHON = "import ast, json, sys; [print(json.dumps(ast.literal_eval(line))) for line in sys.stdin]"


_OF_DATABASE = Advice(f"let the database export rows: {_EXPORTS}", _OF_MYSQL)
SQL_ROWS: Shape = "rows of values as SQL writes them", _OF_DATABASE


def written_otherwise(filled: Sequence[str]) -> Shape | None:
    """Recognize objects that are not written as JSON, and statements of SQL."""
    begin = filled[:_ROWS]
    if begin and (bank := re.match(r"(OFX)HEADER:|!(Type):", begin[0])):
        what = "OFX, a statement of a bank" if bank[1] else "QIF, a statement of a bank"
        return what, Advice("save the statement as CSV where it comes from")
    if begin and all(re.fullmatch(r"\{'[^']*': .*\}\s*", line) for line in begin):
        return "objects as Python prints them, not JSON", piped(f"python3 -c '{_PYTHON}' < {{file}}", guess=True)
    if len(begin) > 1 and re.fullmatch(r"(---|- [\w-]+:( .*)?|[\w-]+:)\s*", begin[0]) and _keys(begin[1:]):
        return "YAML", Advice(*_OF_YQ, (Read(convert="yq -o json -I 0 '.[]' {file}", guess=True),))
    statements = filled[:_STATEMENTS] if begin and _OF_DUMP.match(begin[0]) else begin
    if any(map(_INSERTS.match, statements)) or (
        any(map(_CREATES.match, statements)) and any(map(_INSERTS.match, filled))
    ):
        return "SQL statements", _OF_DATABASE
    if any(map(_CREATES.match, statements)):
        return "the definition of a table in SQL, without rows", _BESIDE
    return None


_STATEMENTS = 100
"""Lines of a dump before its first statement about a table, at most."""

_OF_DUMP = re.compile(r"--|/\*|(SET|USE|PRAGMA|BEGIN|DROP|LOCK) ", re.IGNORECASE)
_CREATES = re.compile("CREATE TABLE", re.IGNORECASE)
_INSERTS = re.compile(r"INSERT (INTO )?[\w\[\"`]|COPY \S+ .*FROM stdin;", re.IGNORECASE)
_BESIDE = Advice("what mysqldump --tab writes has the rows in the .txt beside it", *_OF_DATABASE.clauses)


def as_ruby(filled: Sequence[str]) -> Shape | None:
    """Recognize objects as Ruby prints them, and rubydebug of Logstash, which is each on several lines."""
    begin = [line for line in filled[:_ROWS] if line.strip() != "{"]
    if not begin or not filled[0].startswith("{") or not all(map(_PAIR_OF_RUBY.match, begin[:2])):
        return None
    return "objects as Ruby prints them, not JSON", piped(f"sed -E '{_FROM_RUBY}' {{file}}", guess=True)


_PAIR_OF_RUBY = re.compile(r'\s*\{?\s*"[^"]*" ?=> ?\S')
_FROM_RUBY = r's/" *=> */": /g; s/: nil/: null/g; s/: ([0-9]{4}-[0-9T:.Z-]+)(,?)$/: "\1"\2/'


def commented(filled: Sequence[str]) -> Shape | None:
    """Recognize JSON that begins with a comment."""
    if not filled or not re.match(r"\s*(//|/\*)", filled[0]) or not any(re.match(r"\s*[{\[]", one) for one in filled):
        return None
    return "JSON with comments", piped("grep -v '^ *//' {file}", "without those on lines of their own: ", guess=True)


def assigned(filled: Sequence[str]) -> Shape | None:
    """Recognize JSON that a line of JavaScript gives to a variable."""
    if not filled or not re.match(r"(?:(?:var|let|const) )?[\w.$]+ = [\[{]\s*(?:[\"{\[]|$)", filled[0].rstrip()):
        return None
    without = "sed -e '1s/^[^=]*=//' -e '$s/;[[:space:]]*$//' {file}"
    return "JSON that JavaScript gives to a variable", piped(without, guess=True)


def _keys(lines: Sequence[str]) -> bool:
    return all(re.match(r"\s*(- )*[\w-]+:(\s|$)|\s*- |\s*#|---$", line) for line in lines)
