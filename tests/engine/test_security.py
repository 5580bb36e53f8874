"""A definition reads the bucket's events and nothing else, even if it slips past the checks."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from pik.engine.sandbox import lock, session
from pik.errors import EngineError

STATEMENTS = [
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_blob('{folder}/*')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM '{secret}'",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "ATTACH '{folder}/other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SELECT * FROM read_csv('https://localhost:1/x.csv')",
    "SET enable_external_access = true",
    "SET allowed_paths = ['{secret}']",
    "SET memory_limit = '100GB'",
    "SET lock_configuration = false",
    "RESET lock_configuration",
    "PRAGMA threads = 64",
    "EXPORT DATABASE '{folder}'",
]


@pytest.mark.parametrize("is_loading", [False, True])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_session_cannot_leave_its_files(tmp_path: Path, statement: str, is_loading: bool) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("secret\n1\n")
    allowed = tmp_path / "allowed.csv"
    allowed.write_text("x\n1\n")
    with session([allowed], is_loading=is_loading) as db:
        assert db.execute(f"SELECT count(*) FROM read_csv('{allowed}')").fetchone() == (1,)
        if is_loading:
            lock(db, 1)
        assert db.execute("SELECT current_setting('memory_limit')").fetchone() == ("244.1 MiB",)
        with pytest.raises(duckdb.Error):
            db.execute(statement.format(secret=secret, folder=tmp_path)).fetchall()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allowed.csv", "secret.csv"]


def test_python_variables_are_no_tables() -> None:
    here = duckdb.connect().sql("SELECT 1 AS x")
    with pytest.raises(EngineError, match="here"), session() as db:
        db.execute("SELECT * FROM here")
    assert here is not None


def test_nothing_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    with session():
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
