"""The runner of documented commands sees what it should see."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docs.console import Step, play, steps

ID = "01J8Z3A0000000000000000000"
OTHER = "01J8Z3B0000000000000000000"


def _page(tmp_path: Path, *lines: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text("\n".join(["text", "```console", *lines, "```", ""]), encoding="utf-8")
    return page


def test_commands_heredocs_and_exit_codes_are_read(tmp_path: Path) -> None:
    page = _page(
        tmp_path, "$ cat > x <<'END'", "$ no command", "END", "$ ls \\", "  x", "x", "$ false", "$ echo $?", "1"
    )
    assert steps(page) == [
        Step("cat > x <<'END'\n$ no command\nEND", "", 0),
        Step("ls \\\n  x", "x", 0),
        Step("false", "", 1),
    ]
    assert play(page, tmp_path) == 3


def test_ids_stand_for_the_real_ones_from_then_on(tmp_path: Path) -> None:
    real = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    (tmp_path / "id").write_text(f"batch id   {real}\n{real} again\nseconds 0.5\n", encoding="utf-8")
    said = [f"batch id {ID}", f"{ID} again", "seconds 3.25"]
    play(_page(tmp_path, "$ cat id", *said, f"$ grep -c {ID[:12]} id", "2", f"$ test {ID} = {real}"), tmp_path)


@pytest.mark.parametrize(
    "lines",
    [
        ["$ printf 'a\\nb\\n'", "a"],
        ["$ printf 'a\\nb\\n'", "b", "…"],
        ["$ false"],
        ["$ true", "$ echo $?", "1"],
        ["$ echo 2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"],
        [f"$ printf '{ID} {ID}\\n'", f"{ID} {OTHER}"],
    ],
)
def test_what_differs_is_found(tmp_path: Path, lines: list[str]) -> None:
    with pytest.raises(AssertionError, match=r"^\$ "):
        play(_page(tmp_path, *lines), tmp_path)


def test_left_out_lines_and_the_clock_do_not_matter(tmp_path: Path) -> None:
    lines = [
        "$ printf 'a\\nb\\nc\\n2026-01-01T00:00:00.123456789Z  d\\n'",
        "a",
        "…",
        "2027-03-03T00:00:00.000000001Z d",
    ]
    assert play(_page(tmp_path, *lines), tmp_path) == 1
