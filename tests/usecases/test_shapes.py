"""What is not JSON lines is recognised by its beginning, and said with what to type; nothing of it is recorded."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import pickle
import shlex
import subprocess
import threading
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st
from pyarrow import orc

from pik.errors import InputError, UsageError
from pik.inputs import text_lines
from pik.inputs.advice import Shape
from pik.inputs.archives import with_members
from pik.inputs.mapping import RecordMapping
from pik.inputs.shapes import recognize
from pik.inputs.source import Source, file_source
from pik.model.event import REQUIRED
from pik.model.layout import AUTO, JSON_LINES, JSON_VALUES, InputFormat, Layout, read_layout

EVENTS: list[dict[str, Any]] = [
    {"source": "s", "event_type": "t", "entity_id": f"u{n}", "event_time": "2026-03-02T10:00:00Z", "payload": {"a": n}}
    for n in range(3)
]
ANY = RecordMapping({**dict.fromkeys(REQUIRED, "'x'"), "event_time": "'2026-01-01T00:00:00Z'"})
LINES = "".join(json.dumps(event) + "\n" for event in EVENTS)
PRETTY = "\n".join(json.dumps(event, indent=2) for event in EVENTS)


def examine(source: Source, mapping: RecordMapping | None, *, mixed: bool = False) -> None:
    with source.open() as opened:
        layout = opened.recognize(AUTO, mapped=mapping is not None)
        if mapping is not None and not mixed:
            opened.expect_fields(layout, mapping)


def table(delimiter: str = ",") -> str:
    rows = io.StringIO()
    writer = csv.writer(rows, delimiter=delimiter, lineterminator="\n")
    writer.writerows([["id", "Start time", "note"], [1, "2026-03-02", 'a "b", c'], [2, "2026-03-02", ""]])
    return rows.getvalue()


HEADERS = """
Order Id,Sent Date,# of Guests,% of total,$ Amount|1,3/27/26 7:12 AM,2,5.5%,$12.50|2,3/28/26 7:12 AM,4,7%,$1.00
entity;2026|a;5|b;6
country,2024,2025,2026|DE,1.5,2,3|FR,2,3,4
hour,0,1,2,3|2026-01-01,5,5,5,5|2026-01-02,1,9,3,4
,2026-01-01,2026-01-02|a,5,6|b,6,7
2026-01-01,day|5,2026-01-01|7,2026-01-02
Name,1st contact,Notes|Anna,Bert,x|Ida,Carl,y
24h volume,7d change %|123.5,4.5%|4,3%
Full name – Rufname,Age > 30,“Score”,~x|Anna,1,5,2|Bo,2,4,3
<DATE>\t<TIME>\t<OPEN>|2026.03.02\t00:00:00\t1.5|2026.03.02\t01:00:00\t1.6
<TICKER>;<CLOSE>|SBER;300.5|GAZP;200.5
№,Имя,Сумма|1,Анна,5|2,Борис,6
"(in %)",=total,-|5,4,a b|6,7,c
"""
ROWS = """
1,2,3|4,5,6|7,8,9
2024,2025,2026|2024,2025,2026|2025,2026,2027
2025,a,5|2026,b,7|2026,c,8
A12,2026-01-01,5|123,2026-01-02,6|124,2026-01-02,6
a@x.com,5,27/Mar/26|b@x.com,6,28/Mar/26|c@x.com,7,29/Mar/26
3f2a-1,click,5|b12c-2,view,6|44aa,view,7
10.0.0.1,GET,200|10.0.0.2,GET,200|10.0.0.3,POST,404
N/A,5,2026-01-01|7,6,2026-01-02|8,6,2026-01-03
2026-03-27,a,|2026-03-28,b,5|2026-03-29,c,6
"""


@pytest.mark.parametrize(("tables", "named"), [(HEADERS, True), (ROWS, False)], ids=["names", "none"])
def test_a_row_unlike_those_below_has_names_and_one_like_them_has_none(tables: str, named: bool) -> None:
    """Names may be numbers, dates, or begin with signs; a row that is taken for names wrongly would be lost."""
    for text in filter(None, tables.split("\n")):
        found = recognize((text.replace("|", "\n") + "\n").encode(), "file", whole=True, mapped=True)
        assert isinstance(found, Shape) is not named, text
        assert named or str(getattr(found, "what", "")) == "CSV without a header", text


@pytest.mark.parametrize(
    ("text", "looks_like", "hint"),
    [
        ("1,2,a\n3,4,b\n5,6,c\n", "CSV without a header", "pik ingest --guess {name} --input csv --columns c1,c2,c3"),
        ("1;2;a\n3;4;b\n5;6;c\n", "CSV without a header", "--input csv --delimiter ';' --columns c1,c2,c3"),
        ("1\t2\n3\t4\n5\t6\n", "TSV without a header", "--input tsv --columns c1,c2"),
        (
            "sep=;\nid;at\n1;2\n3;4\n",
            "CSV after 1 other line",
            "tail -n +2 {name} | pik ingest --guess - --input csv --delimiter ';'",
        ),
        (
            "# of, 2026\n#\nid\tat\n1\t2\n",
            "TSV after 2 other lines",
            "tail -n +3 {name} | pik ingest --guess - --input tsv",
        ),
        (
            "id,at\r1,2\r3,4\r",
            "CSV whose lines end in a carriage return alone",
            "tr '\\r' '\\n' < {name} | pik ingest --guess -",
        ),
        (LINES.replace("}\n", "},\n"), "JSON lines with a comma after each", "sed 's/,[[:space:]]*$//' {name} | pik"),
        (LINES.replace("}\n{", "}, \n{"), "JSON lines with a comma after each", "sed"),
        ('<?xml version="1.0"?>\n<a><b/></a>\n', "XML", "xq"),
        ("<records>\n <r a='1'/>\n</records>", "XML", "xq"),
        ("<!DOCTYPE html><html>", "an HTML page", "error page"),
        (
            json.dumps({"Records": EVENTS}, indent=1),
            "one pretty-printed object around the records",
            "pik ingest {name} --records 'Records[]'",
        ),
        (
            json.dumps({"Records": EVENTS, "n": 3}),
            "one object around the records",
            "pik ingest {name} --records 'Records[]'",
        ),
        (
            json.dumps({"data": {"records": EVENTS}, "n": 3}),
            "one object around the records",
            "pik ingest {name} --records 'data.records[]'",
        ),
        (
            json.dumps({"Records": EVENTS, "users": EVENTS[:2]}),
            "one object around the records",
            "it has 2 lists, Records[], users[]: `pik ingest --guess {name}` proposes one",
        ),
        (
            json.dumps({"meta": [{"name": "a"}, {"name": "b"}], "data": [[1, 2]]}, indent=1),
            "a document whose records, in data[], are lists of values, not objects",
            "jq -c '[.meta[].name] as $names | .data[] | ",
        ),
        (
            '["id", "at"]\n["String", "Date"]\n["a", "2026-03-02"]\n',
            "lists of values, one on each line, and names on the first",
            "jq -cn 'input as $names | inputs |",
        ),
        (
            "".join(f'[#{n}] on "a"\n{json.dumps(event)}\n\n' for n, event in enumerate(EVENTS)),
            "lines of JSON, with a line of text before each",
            "grep '^ *{{' {name} | pik ingest --guess -",
        ),
        (
            "".join(f"<134>2026-03-02T10:00:00Z host app[7]: {json.dumps(event)}\n" for event in EVENTS),
            "text, such as a key or a time, and then JSON",
            "sed",
        ),
        (
            ":20:STARTUMSE\r\n:25:10\r\n" + ":61:2603270327CR37,7\r\n:86:166?00\r\n" * 4,
            "records of several lines, with a field on each",
            "export JSON or CSV",
        ),
        (
            ' 9) 1) "1-0"\n    2) "user"\n10) 1) "2-0"\n    2) "user"\n11) 1) "3-0"\n    2) "user"\n',
            "records of several lines, of which all but the first are set in",
            "export JSON or CSV",
        ),
        ("(1,'a,)(','2026-03-02'),(2,'it''s','2026-03-03')", "rows of values as SQL writes them", "psql --csv"),
        (
            "".join(f"112 <134>1 2026-03-02T10:00:0{n}Z h a 7 - - ok\n" for n in range(3)),
            "a text log",
            "(?:\\d+ )?<",
        ),
        ("INFO: up\nWARN: slow\nINFO: down\nWARN: slow\nINFO: up\nINFO: up\n", "lines of text, not JSON", ""),
        (
            "mysqld, started with:\n"
            + "".join(f"# Time: 2026-03-09T06:11:1{n}.5Z\n# User@Host: a[a] @ h []\nselect {n};\n" for n in range(4)),
            "a log whose entries are several lines",
            "| pik ingest --guess - --pattern '# Time: (?P<time>\\S+)\\s*(?P<text>.*)'",
        ),
        (
            "".join(f"# Time: 260309  6:11:1{n}\n" + "# User@Host: a[a] @ h []\nselect 1;\n" * n for n in range(4)),
            "a log whose entries are several lines",  # of which two may have one time
            "or join the lines of an entry",
        ),
        (
            "".join(f"2026-03-09 10:00:0{n} ERROR no\njava.lang.X: {n}\n\tat a.b(C:1)\n" for n in range(4)),
            "a log whose entries are several lines",
            "awk '/^[0-9]+[-\\/.]",
        ),
        (
            "".join(f"{'2026-03-09 10:00:00 INFO yes'}\n2026-03-09 10:00:0{n} INFO no\n  more\n" for n in range(9)),
            "a text log",
            "",
        ),
        ("[1, 2]\n[3, 4]\n", "lists of values without names, one on each line", "jq -c 'to_entries | "),
        ('[["1-0", ["user", "u"]], ["2-0", ["user", "v"]]]', "an array of lists of values", "jq -c '.[] | "),
        ('level=info msg="a b" n=1\nlevel=warn msg=c\n', "logfmt", "jq -Rc"),
        (
            "".join(f"2026-03-02 INFO {json.dumps(event)}\n" for event in EVENTS),
            "text, such as a key or a time, and then JSON",
            "sed",
        ),
        (
            '2026-03-02T10:00:00.5Z {"user": "a"}\n2026-03-02T10:00:01Z {"user": "b"}\n',
            "text, such as a key or a time, and then JSON",
            """--map event_time=time --map 'payload=parse_json(value)'""",
        ),
        (
            'k-1 {"entity_id": "a"}\nk-2 {"entity_id": "b"}\n',
            "text, such as a key or a time, and then JSON",
            """--pattern '(?P<before>[^{{]*)(?P<value>.*)' --map source=COLUMN""",
        ),
        ('json[0].id = "a";\njson[0].at = "b";\njson[1].id = "c";\n', "what gron prints", "gron --ungron"),
        (
            "INSERT INTO t VALUES (1);\nUPDATE t SET a = 2;\nUPDATE t SET a = 1;\n",
            "SQL statements",
            "mysql --batch",
        ),
        (
            "".join(f"CreateTime:177243930412{n}\tu-7\t{json.dumps(event)}\n" for n, event in enumerate(EVENTS)),
            "what kafka-console-consumer prints",
            "--map entity_id=key --map event_time=ts --time-format epoch_ms ",
        ),
        (
            "".join(f"CreateTime:177243930412{n}\tPartition:0\tOffset:{n}\tNO_HEADERS\tu-7\t{{}}\n" for n in range(2)),
            "what kafka-console-consumer prints",
            r"Partition:(?P<partition>\d+)\tOffset:(?P<offset>\d+)\t(?P<headers>[^\t]*)\t(?P<key>[^\t]*)\t(?P<value>.*)",
        ),
        (
            "".join(
                json.dumps({"topic": "t", "partition": 0, "offset": n, "key": None, "payload": json.dumps(event)})
                + "\n"
                for n, event in enumerate(EVENTS)
            ),
            "kcat -J",
            "--map 'payload=parse_json(payload).payload'",
        ),
        ("".join(f"2026-03-02 10:00:0{n} INFO step {n}\n" for n in range(3)), "a text log", "--pattern"),
        (
            "".join(f"2026-03-02 10:00:0{n},123 - app - INFO - step, {n}\n" for n in range(5)),
            "a text log",
            "(?P<time>",
        ),
        (
            "".join(f'[2026-03-02T10:00:0{n}.1Z] "GET /a,b" 200\n' for n in range(5)),
            "a text log",
            "--map event_time=time",
        ),
        (
            "".join(f"[Mon Mar 02 10:00:0{n}.123456 2026] [core:error] a\n" for n in range(3)),
            "a text log",
            "'%a %b %d ",
        ),
        (
            "".join(f"2026-03-02 10:00:0{n}.123 | INFO     | shop:pay:15 - o-1, {n}\n" for n in range(3)),
            "a text log",
            r"?)[\s|:\[]*(?P<level>[A-Za-z]+)(?P<text>.*)",
        ),
        (
            "".join(
                f"{level}, [2026-03-02T10:00:0{n}.123456 #7]  {level}NFO -- : o-1\n" for n, level in enumerate("IWI")
            ),
            "a text log",
            r"\W*(?P<level>[A-Za-z]+)\W*(?P<time>\d{{4}}[-/.]\d\d[-/.]\d\d(?:T| +)",
        ),
        (
            "".join(f"2026-03-02 10:00:0{n}.123 +01:00 [INF] up\n" for n in range(3)),
            "a text log",
            r"(?:[.,]\d+)?(?: ?[AaPp][Mm]\b)?(?:Z| ?[-+]\d\d:?\d\d\b|[-+]\d\d\b| UTC\b)?)[\s|:\[]*(?P<level>",
        ),
        ("".join(f"2026-03-02 10:00:0{n} UTC [7] LOG:  up\n" for n in range(3)), "a text log", r"| UTC\b)?)(?P<text>"),
        (
            "".join(f"[2026-03-02 10:00:0{n},123: INFO/MainProcess] up\n" for n in range(3)),
            "a text log",
            r"\[(?P<time>\d{{4}}[-/.]",
        ),
        (
            "\n  .   ____ (_)\n :: Spring Boot ::  (v3.4.1)\n\n"
            + "".join(
                f"2026-03-02T10:00:0{n % 10}.123Z  INFO 7 --- [main] c.e.App : up\n"
                + ("java.lang.X: no\n\tat c.e.App(App.java:7)\n" if n % 9 == 4 else "")
                for n in range(40)
            ),
            "a text log",
            "--map event_time=time",
        ),
        (
            "".join(f"{'shop-1  ' if n % 2 else 'worker-1'} | 2026-03-02 10:00:0{n} INFO up, {n}\n" for n in range(6)),
            "a text log",
            "(?P<before>.*?)(?P<time>",
        ),
        ("".join(f"26/03/02 10:00:0{n} INFO SparkContext: up\n" for n in range(3)), "a text log", "event_type=level"),
        ("".join(f"1772445600.{n} [INFO] up\n" for n in range(3)), "a text log", "--time-format epoch"),
        (
            "".join(f"I0302 10:00:0{n}.123456   77 controller.go:42] up\n" for n in range(3)),
            "a text log",
            "--time-format '%Y %m%d %H:%M:%S.%f' --timezone ZONE",
        ),
        (
            "".join(f"10:00:0{n}.123 [main] INFO  c.e.App -- up\n" for n in range(3)),
            "a text log whose times have no day",
            """in the place of DAY: pik ingest""",
        ),
        ("".join(f"7|2026-03-02 10:00:0{n}|INFO|up\n" for n in range(3)), "CSV without a header", "c1,c2,c3,c4"),
        ("".join(f"2026-03-02 10:00:0{n},INFO,7\n" for n in range(3)), "CSV without a header", "c1,c2,c3"),
        ("".join(f"10/03/2026, 02:0{n}, 7\n" for n in range(3)), "CSV without a header", "c1,c2,c3"),
        (
            "".join(f"\x1b[90m2026-03-02T10:00:0{n}Z\x1b[0m \x1b[32mINFO\x1b[0m up\n" for n in range(3)),
            "text with the colours of a terminal",
            r"perl -pe 's/\e\[[\d;]*m//g' {name} | pik ingest --guess -",
        ),
        (
            "".join(f'I, [2026-03-02T10:00:0{n}.5 #7]  INFO -- : {{"user": "a"}}\n' for n in range(3)),
            "text, such as a key or a time, and then JSON",
            "--map event_time=time",
        ),
        (
            "".join(f'web-1  | 2026-03-02T10:00:0{n}.5Z {{"at": "2026-03-02T10:00:00Z"}}\n' for n in range(3)),
            "text, such as a key or a time, and then JSON",
            "--map event_time=COLUMN",
        ),
        (
            "".join(f'Mar 02 10:00:0{n} {{"user": "a"}}\n' for n in range(3)),
            "text, such as a key or a time, and then JSON",
            "['YEAR', time]",
        ),
        ("".join(f"7 a 10:00:0{n} up\n" for n in range(3)), "lines of text, not JSON", ""),
        (
            "".join(f'{{\n    "at" => 2026-03-02T10:00:0{n}.5Z,\n    "n" => nil\n}}\n' for n in range(3)),
            "objects as Ruby prints them",
            r"""sed -E 's/" *=> */": /g; """,
        ),
        ('{"a"=>"x", "n"=>1}\n{"a"=>"y", "n"=>2}\n', "objects as Ruby prints them", "| pik ingest --guess -"),
        ("[main] up, a\n[main] down, a\n[main] up, b\n", "a text log", "--map event_time=COLUMN"),
        ("[    0.000000] Linux\n[    0.004000] up\n", "a text log", "--map event_time=COLUMN"),
        ('[pod/a] {"user": "a"}\n[pod/b] {"user": "b"}\n', "text, such as a key or a time, and then JSON", "--pattern"),
        (
            "".join(f'2026-03-02T10:00:0{n}Z\t*  \t{{"user": "a", "n": {n}}}\n' for n in range(3)),
            "TSV without a header",
            "--input tsv --columns c1,c2,c3",
        ),
        (
            "".join(f"Mar  2 10:00:0{n} h CEF:0|V|P|1|100|lo\\|gin|5|src=::1 rt=177244560{n}000\n" for n in range(3)),
            "CEF of devices for security",
            "--map event_type=name --map entity_id=COLUMN --map event_time=rt --map payload=@ --time-format epoch_ms",
        ),
        ("Mar 2 h LEEF:1.0|V|P|1|login|src=::1\n" * 3, "LEEF of devices for security", "--map event_type=id"),
        (
            "id~|~at~|~n\na~|~2026~|~1\nb~|~2026~|~2\nc~|~2026~|~\n",
            "a table with ~|~ between its cells",
            "awk -F '[~][|][~]' -v OFS='\\t' '{{$1=$1}} 1' {name} | pik ingest --guess -",
        ),
        ("id||at\na||2026\nb||\nc||2026\n", "a table with || between its cells", "awk -F '[|][|]'"),
        ("1|||a\n2|||b\n3|||c\n", "CSV without a header", "--delimiter '|' --columns c1,c2,c3,c4"),
        (
            "id\x1fat\x1ea\x1f2026\x1eb\x1f2026\x1e",
            "a table with ASCII's separators of records and units",
            "tr '\\036\\037' '\\n\\t' < {name} | pik ingest --guess -",
        ),
        (
            "#group,false,true\n#datatype,string,double\n,device,_value\n,a,1.5\n,b,2\n",
            "CSV after 2 other lines",
            "tail -n +3 {name} | pik ingest --guess - --input csv",
        ),
        ('--- got message ---\nkey:[a], content:{"id": 1}\n' * 3, "lines of text, not JSON", "--pattern"),
        (
            "Table: ORDERS\n---------\n|id |at  |\n---------\n|a  |2026|\n",
            "a table drawn for people",
            "psql --csv",
        ),
        ("".join(f"Mar  2 10:00:0{n} host sshd[{n}]: ok\n" for n in range(3)), "a text log", "['YEAR', time]"),
        ("".join(f"Mar  2 10:00:0{n} h cron: ok\n" for n in (1, 2)), "a text log", "source=host --map event_type=app"),
        (
            "".join(f"<134>1 2026-03-02T10:00:0{n}Z h a 7 - - ok\n" for n in range(3)),
            "a text log",
            "--map event_type=app",
        ),
        (
            "".join(f'1.2.3.4 - - [02/Mar/2026:10:00:0{n} +0000] "GET / HTTP/1.1" 200 9 "-" "-" 0.1\n' for n in (1, 2)),
            "a text log",
            "--time-format apache",
        ),
        (
            "#Version: 1.0\n#Fields: date time c-ip cs(Host)\n" + "2026-03-02\t10:00:00\t1.2.3.4\ta\n" * 3,
            "an extended log of the W3C",
            """--map 'source="cs(Host)"' --map event_type=COLUMN --map 'entity_id="c-ip"'""",
        ),
        (
            "#Software: IIS\n#Fields: date time c-ip cs-username sc-status\n"
            + "2026-03-02 10:00:00 1.2.3.4 - 200\n" * 3,
            "an extended log of the W3C",
            """'entity_id="c-ip"' --map "event_time=join(' ', [date, time])" --map payload=@ --timezone UTC""",
        ),
        (" id | at\n----+---------\n  1 | 2026\n(1 row)\n", "a table drawn for people", "psql --csv"),
        (
            f' json_agg \n{"-" * 30}\n [{{"id": 1}},   +\n  {{"id": 2}}]\n(1 row)\n',
            "JSON in a table drawn for people",
            "psql -At",
        ),
        (f'JSON_F52E\n{"-" * 30}\n[{{"id":1\n}}]\n\n', "JSON in a table drawn for people", "sqlcmd -y 0"),
        (
            f'+{"-" * 12}+\n| doc        |\n+{"-" * 12}+\n| {{"id": 1}}  |\n',
            "JSON in a table drawn for people",
            "mysql -N",
        ),
        (" id | doc\n----+-----\n  1 | {}\n", "a table drawn for people", "psql --csv"),
        ("+----+------+\n| id | at   |\n+----+------+\n|  1 | 2026 |\n", "a table drawn for people", "mysql --batch"),
        (
            '"id" "at"\n"a" "2026-03-02 10:00:00"\n"b" "2026-03-02 10:00:01"\n',
            "as R writes them",
            "pik ingest --guess {name} --input csv --delimiter ' '; write.csv",
        ),
        ('"id" "at"\n"1" "a" 7\n"2" "b" 8\n', "as R writes them", "--delimiter ' ' --columns row,id,at; "),
        (
            "-- MySQL dump\n" + "/*!40101 SET @x=1 */;\n" * 21 + "CREATE TABLE `o` (\n  `id` text\n);\n",
            "the definition of a table in SQL, without rows",
            "in the .txt beside it; let the database export rows",
        ),
        (
            "-- PostgreSQL\n"
            + "SET x = on;\n" * 21
            + "CREATE TABLE o (\n    id text\n);\nCOPY o (id) FROM stdin;\n1\n",
            "SQL statements",
            "let the database export rows",
        ),
        ("USE [shop]\nGO\nINSERT [dbo].[o] ([id]) VALUES (1)\nGO\n", "SQL statements", "let the database export rows"),
        ("OFXHEADER:100\nDATA:OFXSGML\n", "OFX, a statement of a bank", "as CSV"),
        ("!Type:Bank\nD3/2'26\nT-1\n^\n", "QIF, a statement of a bank", "as CSV"),
        ("__CURSOR=s\nMESSAGE=a\n\n__CURSOR=t\nMESSAGE=b\n", "what journalctl -o export writes", "jq -Rsc"),
        ("1\tx\t{}\n2\ty\t{}\n3\tz\t{}\n", "TSV without a header", "--columns c1,c2,c3"),
        ("it began\nit went on\nit ended\n", "lines of text, not JSON", "--pattern"),
        ("Sid=1&Status=sent\nSid=2&Status=sent\n", "lines of text, not JSON", "pik ingest --guess {name} --pattern"),
        ('# TYPE n counter\nn{code="200"} 7\nn{code="500"} 1\n', "lines of text, not JSON", "--pattern"),
        (
            't,at=Ulm v=1,s="a b" 1772439304120000000\nt,at=Ulm v=2 1772439304120000000\n',
            "the line protocol of InfluxDB",
            "--map entity_id=tags --map event_time=time --map payload=@ --time-format epoch_ns",
        ),
        (
            '"TOA5","CR1"\n"TIMESTAMP","RECORD","T"\n"TS","RN","C"\n"2026-03-02 10:00:00",1,7\n"2026-03-02",2,7\n',
            "CSV after 1 other line",
            "tail -n +2 {name} | pik ingest --guess - --input csv",
        ),
        (
            "a,b\n1,x,\n2,y,\n",
            "CSV whose header has 2 names, and whose rows have 3 cells",
            r"sed -E '1s/(\r?)$/,\1/' {name} | pik ingest --guess -",
        ),
        ("a\tb\n1\tx\t7\n2\ty\t8\n", "TSV whose header has 2 names", r"sed -E '1s/^/\t/' {name} | pik ingest"),
        ("a|b|\n1|x\n2|y\n", "CSV whose header has 3 names", r"sed -E '1s/[|](\r?)$/\1/' {name} | pik ingest"),
        (
            "10/03/2026, 02:39 - Ann: paid 7, or 8\n10/03/2026, 02:41 - Bob: yes\nand more\n",
            "a text log",
            "--map entity_id=from --map event_time=time",
        ),
        (
            'window.YTD.tweets.part0 = [\n  {"tweet": {"id": "1"}},\n  {"tweet": {}}\n]',
            "JSON that JavaScript",
            "sed -e",
        ),
        ("{'id': 'a', 'ok': True}\n{'id': 'b', 'x': None}\n", "objects as Python prints them", "python3 -c"),
        ('// of March\n[\n {"id": 1}, // a\n {"id": 2}\n]\n', "JSON with comments", "grep -v"),
        ("- id: a\n  at: 2026-03-02\n- id: b\n  at: 2026-03-03\n", "YAML", "yq"),
        ("-- a dump\nCREATE TABLE t (id int);\nINSERT INTO t VALUES (1,'a');\n", "SQL statements", "psql --csv"),
        (
            "".join(f'{{"index":{{"_index":"o","_id":"{n}"}}}}\n{{"at":"2026-03-0{n}","eur":{n}}}\n' for n in (1, 2)),
            "the body of a bulk request of Elasticsearch",
            'jq -c \'select(keys - ["index", "create", "update", "delete"] != [])\' {name} | pik ingest --guess -',
        ),
    ],
)
def test_what_a_text_looks_like(tmp_path: Path, text: str, looks_like: str, hint: str) -> None:
    compressed = gzip.compress(text.encode()), bz2.compress(text.encode()), lzma.compress(text.encode())
    for name, data in zip(("plain", "gz", "bz2", "xz"), (text.encode(), *compressed), strict=True):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match="cannot be read: it looks like ") as error:
            examine(file_source(str(tmp_path / name)), None)
        assert looks_like in error.value.message
        assert hint.format(name=tmp_path / name) in error.value.hint


def test_names_of_columns_may_begin_with_a_sign(tmp_path: Path) -> None:
    """As those of CloudWatch Logs Insights do."""
    (tmp_path / "file").write_text("@timestamp,@message\n2026-03-02 10:00:00,a\n2026-03-02 11:00:00,b\n")
    with file_source(str(tmp_path / "file")).open() as opened:
        assert opened.recognize(AUTO, mapped=True) == Layout(InputFormat.CSV)


def test_a_hint_for_another_program_unpacks_the_file_first(tmp_path: Path) -> None:
    for ending, data in ((".gz", gzip.compress(b"sep=;\nid;at\n1;2\n")), (".xz", lzma.compress(b"a=1 b=2\nc=3 d=4\n"))):
        path = tmp_path / f"x{ending}"
        path.write_bytes(data)
        with pytest.raises(InputError) as error:
            examine(file_source(str(path)), None)
        assert f"<({ {'.gz': 'gzip', '.xz': 'xz'}[ending] } -dc {path}) | pik ingest -" in error.value.hint


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        "not JSON\n" + LINES,
        "".join(f"not JSON\n{json.dumps(event)}\n" for event in EVENTS[:2]),
        "".join(f"7\n{json.dumps(event)}\n" for event in EVENTS),
        "a,b\nc,d\n" + LINES,
        LINES.replace("}\n", "}\r\n"),
        "{\n" + LINES,
        json.dumps(EVENTS[0], indent=None),
        '{"a":1}\n',
        '{"a":1\n{"a":2}\n',
        "",
        "\n\n",
        "one line of prose, and no more",
        "{",
        "\0" * 100 + LINES,
        LINES + "\0" * 100,
    ],
)
def test_what_holds_a_line_of_json_or_is_not_certain_is_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "input").write_text(text)
    for mapping in (None, ANY):
        examine(file_source(str(tmp_path / "input")), mapping)


def test_a_mapping_may_be_for_what_is_around_the_records(tmp_path: Path) -> None:
    (tmp_path / "input").write_text(json.dumps({"Records": EVENTS}))
    examine(file_source(str(tmp_path / "input")), ANY)


def test_rows_of_several_cells_that_are_never_as_many_are_lines_though_the_name_says_csv() -> None:
    found = recognize(b"1;2;a;\n3;4;b;c;\n5;6;d;e;f;\n", "x.csv", whole=True, mapped=False)
    assert "lines of text" in str(found)


@example("<a", False, False)
@given(st.text(max_size=300), st.booleans(), st.booleans())
def test_looking_never_fails(text: str, whole: bool, mapped: bool) -> None:
    recognize(text.encode(errors="replace"), "x.csv", whole=whole, mapped=mapped)


@given(st.lists(st.text(max_size=40), max_size=10), st.booleans())
def test_an_input_with_a_line_that_is_an_event_is_always_read(others: list[str], whole: bool) -> None:
    text = "\n".join([*others, json.dumps(EVENTS[0]), "", ""])
    if text.lstrip()[:1] not in ("<", "["):
        found = recognize(text.encode(errors="replace"), "x", whole=whole, mapped=False)
        assert found in (JSON_LINES, JSON_VALUES)


@pytest.mark.parametrize("tombstones", ["", "key-1\tnull\nkey-2\t\nkey-3\tNULL\n"])
def test_keys_and_tabs_before_objects_are_kcats(tmp_path: Path, tombstones: str) -> None:
    text = "".join(f"key-{n}\t{json.dumps(event)}\n" for n, event in enumerate(EVENTS)) + tombstones
    (tmp_path / "input").write_text(text)
    with file_source(str(tmp_path / "input")).open() as opened:
        assert opened.recognize(AUTO, mapped=False) == Layout(InputFormat.KCAT)
        with pytest.raises(UsageError, match=r"the first records of .* have no field of an event") as error:
            opened.expect_fields(Layout(InputFormat.KCAT), RecordMapping({}))
        assert "they have key, value; `pik ingest --guess " in error.value.hint


LATER = """
2026-01-31 00:00:0{n} a|2026-01-31 00:01:0{n} +0200 b|00:01:0{n} +0200
2026-01-31 00:00:0{n} a|2026-01-31 00:01:0{n}+02 b|00:01:0{n}+02
2026-01-31 00:00:0{n} a|2026-01-31 00:01:0{n}.250 b|00:01:0{n}.250
2026-01-31 00:00:0{n} a|2026-01-31 00:01:0{n} PM b|00:01:0{n} PM
2026-01-31 00:00:0{n} -0100 a|2026-01-31 00:01:0{n} +0100 b|00:01:0{n} +0100
2026-01-31 00:00:0{n} a|2026-01-31 00:01:0{n} -12 b|2026-01-31 00:01:0{n}
01/31/2026 10:00:0{n} a|01/31/2026 10:01:0{n} +0200 b|10:01:0{n} +0200
Sat Jan 31 00:00:0{n} 2026 a|Sun Feb  1 00:01:0{n} 2026 b|Feb  1 00:01:0{n} 2026
Jan 31 00:00:0{n} a|Jan 31 00:01:0{n}.250 b|00:01:0{n}.250
Jan 31 00:00:0{n}.250 a|Feb  1 00:01:0{n}.500 b|Feb  1 00:01:0{n}.500
10:00:0{n} a|10:01:0{n} PM b|10:01:0{n} PM
"""


@pytest.mark.parametrize("case", LATER.strip().split("\n"))
def test_a_time_of_a_later_line_is_read_whole_though_no_line_of_the_sample_has_all_of_it(case: str) -> None:
    """An offset, a fraction or PM that were left in the text would make times wrong in silence."""
    first, later, time = case.split("|")
    found = recognize("".join(f"{first}\n".format(n=n) for n in range(8)).encode(), "file", whole=True, mapped=True)
    assert isinstance(found, Shape)
    words = shlex.split(str(found.error("file").hint).partition("pik ingest")[2].rstrip("`"))
    layout = Layout(InputFormat.TEXT, pattern=words[words.index("--pattern") + 1])
    lines = "".join(f"{later}\n".format(n=n) for n in range(8)).encode()
    blocks = [*text_lines.blocks(io.BytesIO(lines), "file", layout, max_line=1 << 20)]
    assert [one.problems for one in blocks] == [{}]
    read = [json.loads(line)["time"] for line in blocks[0].data.splitlines()]
    assert len(read) == 8
    assert all(one.endswith(time.format(n=n)) for n, one in enumerate(read)), read


def test_a_table_whose_first_column_begins_as_a_file_of_orc_does_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "authors.csv").write_text("ORCID,name\n0000-0002-1825-0097,Jos\u00e9\n")
    with file_source(str(tmp_path / "authors.csv")).open() as opened:
        assert opened.recognize(AUTO, mapped=True).format is InputFormat.CSV
    orc.write_table(pa.table({"id": ["a", "b"]}), tmp_path / "a.orc")
    with (
        pytest.raises(InputError, match="looks like an ORC file"),
        file_source(str(tmp_path / "a.orc")).open() as opened,
    ):
        opened.recognize(AUTO, mapped=True)


def test_binary_files_are_recognised_by_their_first_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.avro").write_bytes(b"Obj\x01\x04\x16")
    (tmp_path / "a.lz4").write_bytes(b"\x04\x22\x4d\x18\0")
    (tmp_path / "a.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "a.zz").write_bytes(zlib.compress(b"\0" * 9 + LINES.encode()))
    (tmp_path / "a.lzma").write_bytes(lzma.compress(LINES.encode(), lzma.FORMAT_ALONE))
    (tmp_path / "a.Z").write_bytes(b"\x1f\x9d\x90")
    (tmp_path / "a.rds").write_bytes(gzip.compress(b"X\n\0\0\0\3"))
    (tmp_path / "a.arrow").write_bytes(b"ARROW1\0\0")
    (tmp_path / "a.bson").write_bytes(b"\x5d\0\0\0\x07_id\0" + b"\x69" * 12 + b"\x02a\0")
    (tmp_path / "a.lzo").write_bytes(b"\x89LZO\0\r\n\x1a\n")
    (tmp_path / "a.br").write_bytes(b"\x1b\x5f\x46\xa8\xc5" * 9)
    (tmp_path / "a.gpg").write_bytes(b"\x85\x01\x0c\x03\xc3" * 9)
    (tmp_path / "a.asc").write_text("-----BEGIN PGP MESSAGE-----\n\nhQEMA\n")
    named = (
        ("a.avro", "Avro"),
        ("a.lz4", "lz4"),
        ("a.zip", "zip"),
        ("a.zz", "zlib"),
        ("a.lzma", "lzma"),
        ("a.Z", "compress"),
        ("a.rds", "R saved"),
        ("a.arrow", "Arrow"),
        ("a.bson", "MongoDB"),
        ("a.lzo", "lzop"),
        ("a.br", "Brotli"),
        ("a.gpg", "PGP"),
        ("a.asc", "PGP"),
    )
    for name, said in named:
        with pytest.raises(InputError, match=f"it looks like .*{said}") as error:
            examine(file_source(str(tmp_path / name)), None)
        assert "| pik ingest -" in error.value.hint
    for data in (pickle.dumps({"a": 1}), b"\x89HDF\r\n\x1a\n\0", b"$FL2@(#)", b"PGDMP\x01\x0f", b"REDIS0011\xfa"):
        (tmp_path / "pandas").write_bytes(data)
        with pytest.raises(InputError, match=r"looks like (a pickle|an HDF5 file|data of SPSS|a dump of )"):
            examine(file_source(str(tmp_path / "pandas")), None)
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        (tmp_path / "a.txt").write_text(LINES, encoding=encoding)
        with pytest.raises(InputError, match=f"it looks like {encoding.upper()}") as error:
            examine(file_source(str(tmp_path / "a.txt")), None)
        assert error.value.hint == f"pik ingest {tmp_path / 'a.txt'} --encoding {encoding}"
    for number, data in enumerate([b"\x7fELF\x02\x01\0\0", b"\0\x01\x02", b"\xff\0\xfe\x80" * 50]):
        (tmp_path / str(number)).write_bytes(data)
        with pytest.raises(InputError, match="is a binary file, not JSON lines"):
            examine(file_source(str(tmp_path / str(number))), None)


@pytest.mark.parametrize(
    ("name", "text", "layout"),
    [
        ("x", table(), Layout(InputFormat.CSV)),
        ("x", table("\t"), Layout(InputFormat.TSV)),
        ("x", table(";"), Layout(InputFormat.CSV, delimiter=";")),
        ("x", table("|"), Layout(InputFormat.CSV, delimiter="|")),
        ("x", 'a,b\n1,"two\nlines, and ""more"""\n', Layout(InputFormat.CSV)),
        ("x", "a;b\n1;2,5\n1\n3;4\n", Layout(InputFormat.CSV, delimiter=";")),
        ("x", ",id,at\n0,a,5\n1,b,6\n2,c,7\n", Layout(InputFormat.CSV)),  # pandas: the numbers of rows have no name
        ("x", "id;at;\na;5;\nb;6;\nc;7;\n", Layout(InputFormat.CSV, delimiter=";")),
        ("x", "id, at\na, 5\nb, 6\nc, 7\n", Layout(InputFormat.CSV)),
        (
            "x",
            "at|level|n\n" + "".join(f"2026-03-02 10:00:0{n}|INFO|{n}\n" for n in range(4)),
            Layout(InputFormat.CSV, delimiter="|"),
        ),
        ("x", "version eni start action\n2 a 17 OK\n2 b 18 OK\n", Layout(InputFormat.CSV, delimiter=" ")),
        ("x.csv", "id\n1\n", Layout(InputFormat.CSV)),
        ("x.CSV.gz", "id\n1\n", Layout(InputFormat.CSV)),
        ("x.tsv", "id\n1\n", Layout(InputFormat.TSV)),
        ("x.csv", LINES, JSON_LINES),
        ("x.csv", "", JSON_LINES),
        ("x", "id\n1\n", JSON_LINES),
    ],
)
def test_a_table_is_recognized_by_its_rows_or_its_name(tmp_path: Path, name: str, text: str, layout: Layout) -> None:
    data = text.encode() if not name.endswith(".gz") else gzip.compress(text.encode())
    (tmp_path / name).write_bytes(data)
    with file_source(str(tmp_path / name)).open() as opened:
        assert opened.recognize(AUTO, mapped=True) == layout


@pytest.mark.parametrize(
    "text",
    [
        "[" + ",".join(map(json.dumps, EVENTS)) + "]",
        json.dumps(EVENTS, indent=2),
        PRETTY,
        PRETTY[:200],
        PRETTY.replace('"a": 0', '"a": [{"b": 0}]'),
        json.dumps({**EVENTS[0], "payload": EVENTS}, indent=1),
        PRETTY.replace("0\n", "0,\n", 1),
        "".join(map(json.dumps, EVENTS)),
        "".join(f"\x1e{json.dumps(event)}\n" for event in EVENTS),
    ],
)
def test_json_that_is_not_one_object_per_line_is_recognized(tmp_path: Path, text: str) -> None:
    (tmp_path / "input").write_text(text)
    with file_source(str(tmp_path / "input")).open() as opened:
        for mapped in (False, True):
            layout = opened.recognize(AUTO, mapped=mapped)
            assert layout == JSON_VALUES
            opened.expect_fields(layout, RecordMapping({"payload": "payload"}))
        if text != PRETTY[:200]:
            *_, last = opened.blocks(layout, 1 << 20)
            found = json.loads(last.data.splitlines()[-1])
            assert found == EVENTS[-1] or found["payload"] == EVENTS


LOGS = {"resource": {}, "schemaUrl": "u", "scopeLogs": [{"scope": {}, "logRecords": EVENTS}]}


@pytest.mark.parametrize(
    "document",
    [{"Records": EVENTS}, {"a": {"b c": EVENTS}}, {"resourceLogs": [LOGS]}, {"n": 1, "other": [1], "x": EVENTS}],
)
def test_what_the_hint_for_records_in_documents_suggests_works(tmp_path: Path, document: Any) -> None:
    (tmp_path / "input").write_text(json.dumps(document, indent=1))
    with file_source(str(tmp_path / "input")).open() as opened:
        with pytest.raises(InputError) as error:
            opened.recognize(AUTO, mapped=False)
        *command, path = shlex.split(error.value.hint)
        assert command == ["pik", "ingest", str(tmp_path / "input"), "--records"]
        (block,) = opened.blocks(read_layout({"records": path}), 1 << 20)
        assert [json.loads(line) for line in block.data.splitlines()] == EVENTS


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_around_more_records_than_are_looked_at_is_recognized(tmp_path: Path, indent: int | None) -> None:
    events = [{**EVENTS[0], "payload": {"n": n, "lists": [{"of": "objects"}]}} for n in range(1000)]
    (tmp_path / "input").write_text(json.dumps({"n": 1, "data": {"Records": events}}, indent=indent))
    fits = RecordMapping({name: name for name in REQUIRED})
    source = file_source(str(tmp_path / "input"))
    with pytest.raises(InputError, match="looks like one object around the records") as error:
        examine(source, None)
    assert error.value.hint.endswith("--records 'data.Records[]'")
    if indent is None:
        with pytest.raises(InputError, match="the mapping fits objects in the first record of") as error:
            examine(source, fits)
        assert "--records 'data.Records[]' reads them" in error.value.hint
    examine(source, fits, mixed=True)
    (tmp_path / "input").write_text(json.dumps({"data": {"Records": events[:3]}}))
    with pytest.raises(InputError, match="the mapping fits objects in the first record of"):
        examine(source, fits)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('time=Mon msg="say \\"a b\\"" n=1\n' * 2, {"time": "Mon", "msg": 'say "a b"', "n": "1"}),
        ('{"columns": ["a", "b"], "rows": [[1, "x"], [2, null]]}', {"a": 1, "b": "x"}),
        ('["a", "b"]\n[1, "x"]\n', {"a": 1, "b": "x"}),
        ("".join(f"Row {n}:\n───\nid: {n}\nat: 10:00:0{n}\n\n" for n in (1, 2, 3)), {"id": "1", "at": "10:00:01"}),
        ('[["1-0", ["user", "u", "n", "7"]]]', {"c1": "1-0", "user": "u", "n": "7"}),
        ("[1, [2.5]]\n[3, 4]\n", {"c1": 1, "c2": [2.5]}),
        ('{"tables": [{"columns": [{"name": "a"}, {"name": "b"}], "rows": [[1, "x"], [2, "y"]]}]}', {"a": 1, "b": "x"}),
        (
            json.dumps({"u": {}, "o": {f"-N{n}": {"a": n, "at": n, "n": [{}]} for n in range(10)}}),
            {"key": "-N0", "a": 0, "at": 0, "n": [{}]},
        ),
    ],
    ids=["logfmt", "columns", "names", "vertical", "pairs", "places", "tables", "keys"],
)
def test_what_the_hint_for_values_without_names_suggests_works(tmp_path: Path, text: str, expected: object) -> None:
    (tmp_path / "input").write_text(text)
    with pytest.raises(InputError) as error:
        examine(file_source(str(tmp_path / "input")), None)
    line = error.value.hint.partition(" | pik ingest")[0]
    line = line[line.index("jq ") :]
    done = subprocess.run(["bash", "-c", line], capture_output=True, check=True, text=True)
    assert json.loads(done.stdout.splitlines()[0]) == expected


def test_zstd_that_looks_back_further_than_memory_allows_is_refused_with_what_works(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    compressor = zstandard.ZstdCompressor(compression_params=parameters)
    stream = compressor.compressobj()  # the size is not known to it, so the header has the whole window
    (tmp_path / "dump.zst").write_bytes(stream.compress(LINES.encode()) + stream.flush())
    with zipfile.ZipFile(tmp_path / "dump.zip", "w") as archive:
        archive.write(tmp_path / "dump.zst")
    for name in ("dump.zst", "dump.zip"):
        (source,) = with_members([file_source(str(tmp_path / name))], pytest.fail)
        with pytest.raises(InputError, match="--long=28, and takes 256 MiB") as error, source.open() as opened:
            list(opened.blocks(JSON_LINES, 1 << 20))
        assert error.value.hint == f"--max-window {1 << 28} allows that much memory"
        wide = replace(file_source(str(tmp_path / name)), window=1 << 28)
        (source,) = with_members([wide], pytest.fail)
        with source.open() as opened:
            assert opened.recognize(AUTO, mapped=True) == JSON_LINES
            assert b"".join(block.data for block in opened.blocks(JSON_LINES, 1 << 20)) == LINES.encode()


ECS = {"@timestamp": "2026-03-02T10:00:00Z", "log.level": "info", "user": {"id": "u1"}, "n": 1}
ECS[" at"] = "2026-03-02T10:00:00Z"
ECS["text"] = json.dumps({"user": json.dumps({"id": "u2"})})
FITTING = {"source": "'s'", "event_type": "'t'", "entity_id": "user.id", "event_time": '"@timestamp"', "payload": "@"}


@pytest.mark.parametrize("start", ["", "[\n", "\ufeff\n "])
@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        (
            {"entity_id": "log.level"},
            "--map entity_id=log.level: the first records of FILE have no field log, but log.level",
            "--map entity_id='\"log.level\"'",
        ),
        (
            {"event_time": "at"},
            "--map event_time=at: the first records of FILE have no field at, but ' at', with white space",
            "--map event_time='\" at\"'",
        ),
        ({"entity_id": "User.id"}, "FILE have no field User", "perhaps --map entity_id=user.id; the records have"),
        ({"event_time": "when"}, "FILE have no field when", "--map event_time=FIELD names another field; the records"),
        ({"source": "faa"}, "--map source=faa: the first records of FILE have no field faa", "--map source=\"'faa'\";"),
        ({"source": None}, "no --map for source: the first records of FILE have no field source", "'NAME'"),
        (
            {"entity_id": "parse_json(text).x.y"},
            "--map entity_id=parse_json(text).x.y: the first records of FILE have no field x there",
            "the fields there are user",
        ),
        (
            {"entity_id": "parse_json(parse_json(text).user).id.x"},
            "--map entity_id=parse_json(parse_json(text).user).id.x: in the first records of FILE it finds nothing",
            "if valid records follow, add --on-invalid reject",
        ),
        ({"entity_id": "lower(text.user)"}, "--map entity_id=lower(text.user): in the first", "lower(TEXT); if"),
        ({"idempotency_key": "parse_json(user.id)"}, "parse_json(): the text is not JSON: ", "parse_json(TEXT); if"),
        ({"entity_id": 'split(user.id, "1")[0]'}, "split() takes string, not null", "texts are in single quotes"),
        ({"entity_id": "line"}, "--map entity_id=line: the first records of FILE have no", "has parentheses: line()"),
        ({"entity_id": "user.name"}, "--map entity_id=user.name: in the first records of FILE it finds nothing", ""),
        (
            {"source": "join('-', [file(), line()])"},
            "join() takes an array of strings, not one with a number: '1'",
            "to_string(NUMBER)",
        ),
        (
            {"payload": "body.x"},
            "--map payload=body.x: the first records of FILE have no field body",
            "log.level, user",
        ),
    ],
)
def test_a_mapping_that_fits_none_of_the_first_records_is_a_usage_error(
    tmp_path: Path, start: str, changes: dict[str, str | None], message: str, hint: str
) -> None:
    path = tmp_path / "ecs"
    separator = ",\n" if start.startswith("[") else "\n"
    path.write_text(start + separator.join([json.dumps(ECS)] * 3) + ("]" if start.startswith("[") else ""))
    mapping = RecordMapping({name: text for name, text in {**FITTING, **changes}.items() if text is not None})
    with pytest.raises(UsageError) as error:
        examine(file_source(str(path)), mapping)
    assert message in error.value.message.replace(str(path), "FILE")
    assert hint in error.value.hint
    examine(file_source(str(path)), RecordMapping(FITTING))


@pytest.mark.parametrize("first", ['{"ping": 1}\n' * 150, "not JSON\n" * 150])
def test_first_records_of_another_kind_are_read_past_if_that_is_expected(tmp_path: Path, first: str) -> None:
    path = tmp_path / "late"
    path.write_text(first + json.dumps(ECS) + "\n")
    mapping = RecordMapping(FITTING)
    if first.startswith("{"):
        with pytest.raises(UsageError, match="have no field") as error:
            examine(file_source(str(path)), mapping)
        assert error.value.hint.endswith("; if valid records follow, add --on-invalid reject")
        examine(file_source(str(path)), mapping, mixed=True)


def test_records_without_a_payload_get_a_hint_to_take_the_whole_record(tmp_path: Path) -> None:
    (tmp_path / "flat").write_text(json.dumps(ECS) + "\n")
    mapping = RecordMapping({name: text for name, text in FITTING.items() if name != "payload"})
    with pytest.raises(UsageError, match="no --map for payload") as error:
        examine(file_source(str(tmp_path / "flat")), mapping)
    assert error.value.hint.startswith("--map payload=@ takes the whole record; the records have ")


def test_a_field_that_some_of_the_first_records_have_is_not_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "mixed").write_text(json.dumps({"ping": 1}) + "\n" + json.dumps(ECS) + "\n{\n")
    examine(file_source(str(tmp_path / "mixed")), RecordMapping(FITTING))


def test_a_pipe_with_a_name_is_looked_at_and_then_read_from_its_beginning(tmp_path: Path) -> None:
    for name, text in (("xml", "<a><b/></a>"), ("lines", LINES)):
        path = tmp_path / name
        os.mkfifo(path)
        writer = threading.Thread(target=path.write_text, args=(text,))
        writer.start()
        source = file_source(str(path))
        if name == "xml":
            with pytest.raises(InputError, match="XML"):
                examine(source, None)
        else:
            with source.open() as opened:
                opened.recognize(AUTO, mapped=False)
                assert b"".join(block.data for block in opened.blocks(JSON_LINES, 1 << 20)).decode() == text
        writer.join()
