"""Binary data, recognized by its first bytes, with the command that makes lines of it."""

from __future__ import annotations

import os
import re

from pik.errors import InputError
from pik.inputs.advice import Advice, Option, Read, Shape, piped
from pik.inputs.encoding import shown_encoding
from pik.model.layout import READS

_AS_CSV, _UTF_16 = Advice("save its table as CSV"), Advice((Read((Option("encoding", "utf-16"),)),))

_OF_R = "Rscript -e 'write.csv(readRDS(commandArgs(TRUE)), row.names=FALSE)' {stored}"

_OF_PANDAS = Advice("to_json(FILE, orient='records', lines=True) of pandas writes what is in it as JSON lines")

_OF_ARROW = (
    "python3 -c 'import sys; from pyarrow import feather, parquet;"
    " parquet.write_table(feather.read_table(sys.argv[1]), sys.stdout.buffer)' {stored}"
)
"""Another program's Python; pik's own need not be the one that is called so."""

_MAGIC = {
    b"Obj\x01": ("an Avro file", piped("avro-tools tojson {file}")),
    b"ORC": ("an ORC file", piped("orc-contents {file}")),
    b"PK\x03\x04": ("a zip archive or a spreadsheet", piped("unzip -p {file}")),
    b"\x04\x22\x4d\x18": ("compressed with lz4", piped("lz4 -dc {file}")),
    b"\x1f\x9d": ("compressed with compress", piped("gzip -dc {file}")),
    b"\x5d\0\0": ("compressed with lzma", piped("xz -dc {file}")),
    b"\xff\x06\0\0sNaPpY": ("compressed with Snappy", piped("snzip -dc {file}")),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", piped("7z x -so {file}")),
    b"SQLite format 3\0": ("a SQLite database", piped("sqlite3 -csv -header {file} 'SELECT * FROM TABLE'", guess=True)),
    b"Rar!\x1a\x07": ("a RAR archive", piped("unrar p -inul {file}")),
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1": ("an old Excel workbook or another office document", _AS_CSV),
    b"ARROW1": ("an Arrow file", piped(_OF_ARROW, "as Parquet: ", guess=True)),
    b"FEA1": ("a Feather file", _OF_PANDAS),
    b"\x89HDF\r\n\x1a\n": ("an HDF5 file", _OF_PANDAS),
    b"\x80\x03": ("a pickle of Python", _OF_PANDAS),
    b"\x80\x04\x95": ("a pickle of Python", _OF_PANDAS),
    b"\x80\x05\x95": ("a pickle of Python", _OF_PANDAS),
    b"$FL2": ("data of SPSS", _OF_PANDAS),
    b"<stata_dta>": ("data of Stata", _OF_PANDAS),
    bytes(12) + b"\xc2\xea\x81\x60\xb3\x14\x11\xcf": ("data of SAS", _OF_PANDAS),
    b"PGDMP": ("a dump of pg_dump -Fc", Advice("a database that pg_restore loads it into exports rows: psql --csv")),
    b"REDIS0": ("a dump of Redis", Advice("a Redis with it in prints a stream: redis-cli --json XRANGE KEY - +")),
    b"\x89LZO\0\r\n": ("compressed with lzop", piped("lzop -dc {file}")),
    b"X\n\0\0\0": ("data that R saved", piped(_OF_R, guess=True)),
    b"%PDF-": ("a PDF document", Advice("export what it shows as CSV or JSON where it comes from")),
    b"\xff\xfe": ("UTF-16", _UTF_16),
    b"\xfe\xff": ("UTF-16", _UTF_16),
}  # fmt: skip

_MAGICS = tuple(_MAGIC)

_BINARY = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""Bytes that no text has; NUL may be in one."""

_SOON = 256
"""Bytes of a file among which some are binary, if it is."""

_ZLIB = b"x\x01", b"x\x9c", b"x\xda"  # where there are zeros, too


def refuse_binary(head: bytes, name: str) -> None:
    """Raise InputError for binary data, by its first bytes. Runs of NUL bytes are text: a disk may have left them in a
    log."""
    if re.match(rb"..[\0-\x02]\0[\x01-\x13]_id\0", head, re.DOTALL):
        raise Shape("a dump of MongoDB", piped("bsondump --quiet {file}", guess=True)).error(name)
    if head.startswith(_MAGICS) and not (head.startswith(b"ORC") and _is_text(head[:_SOON])):
        what, hint = next(shape for magic, shape in _MAGIC.items() if head.startswith(magic))
        raise Shape(what, hint).error(name)
    ending = "" if _is_utf8(head) else os.path.splitext(name)[1]
    if head.startswith(b"-----BEGIN PGP MESSAGE") or ending in (".gpg", ".pgp"):
        raise Shape("encrypted with PGP", piped("gpg -d {file}")).error(name)
    if ending == ".br":
        raise Shape("compressed with Brotli", piped("brotli -dc {file}")).error(name)
    if b"\0" not in head and head[257:262] != b"ustar":
        return
    if (encoding := shown_encoding(head)) is not None:
        what = f"{encoding.upper()} without a byte order mark"
        raise Shape(what, Advice((Read((Option("encoding", encoding),)),))).error(name)
    if head[257:262] == b"ustar":
        raise Shape("a tar archive", piped("tar -xOf {file}")).error(name)
    text = head.replace(b"\0", b"")
    if head.startswith(_ZLIB):
        raise Shape("compressed with zlib", piped("pigz -dc < {file}")).error(name)
    if len(text) < len(head) and (_BINARY.search(text) or not _is_utf8(text)):
        raise InputError(f"{name} is a binary file, not JSON lines", hint=READS)


def _is_text(head: bytes) -> bool:
    """Return whether a head may be text, such as of a table whose first column is ORCID."""
    return b"\0" not in head and _BINARY.search(head) is None and _is_utf8(head)


def _is_utf8(text: bytes) -> bool:
    try:
        text[:-3].decode()
    except UnicodeDecodeError as error:
        return error.start >= len(text) - 6  # the head may end inside of a character
    return True
