"""Progress: a bar on a terminal, a line now and then elsewhere, nothing when nobody wants it."""

from __future__ import annotations

import io

import pytest

from pik.cli.progress import WINDOW, Bar, Lines, Rate, progress
from pik.cli.text import cells
from pik.runtime import SILENT


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def lines_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pik.cli.progress.EVERY", 10.0)


def test_what_suits_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert progress(quiet=True) is SILENT
    assert isinstance(progress(quiet=False), Lines)
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(progress(quiet=False), Bar)
    monkeypatch.setattr("sys.stderr", None)
    assert progress(quiet=False) is SILENT


def test_a_line_every_ten_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    lines = Lines(lambda: now[0])
    for label, total in (("events.jsonl", 1_000_000), ("-", None)):
        lines.start(label, total, "lines")
        for _ in range(25):
            now[0] += 1
            lines.advance(10_000)
        lines.stop()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "events.jsonl: 100,000 of 1,000,000 lines (10 %), 10,000 a second, 1m 30s left",
        "events.jsonl: 200,000 of 1,000,000 lines (20 %), 10,000 a second, 1m 20s left",
        "-: 100,000 lines, 10,000 a second",
        "-: 200,000 lines, 10,000 a second",
    ]


def test_what_was_done_before_makes_nothing_look_faster(capsys: pytest.CaptureFixture[str]) -> None:
    now = [100.0]
    lines = Lines(lambda: now[0])
    lines.start("waiting", 1000, "tasks", 900)
    now[0] += 10
    lines.advance(20)
    assert capsys.readouterr().err == "waiting: 920 of 1,000 tasks (92 %), 2 a second, 40s left\n"


def test_what_is_waited_for_is_said_at_once_and_is_no_slow_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    lines = Lines(lambda: now[0])
    lines.start("rebuilding the index", None, "segments")
    lines.advance(1)
    lines.wait("waiting 35 s until all writers have noticed")
    now[0] += 35
    lines.advance(0)
    now[0] += 10
    lines.advance(1)
    assert capsys.readouterr().err.splitlines() == [
        "rebuilding the index: waiting 35 s until all writers have noticed",
        "rebuilding the index: 1 segment",
        "rebuilding the index: 2 segments, 0 a second",
    ]
    monkeypatch.setattr("sys.stderr", Terminal())
    bar = Bar(lambda: now[0])
    bar.start("rebuilding the index", None, "segments")
    bar.wait("waiting 35 s")
    assert bar.line(80) == "rebuilding the index waiting 35 s"
    bar.advance(1)
    assert bar.line(80) == "rebuilding the index 1 segment"
    bar.stop()


def test_a_rate_is_of_late_and_none_is_known_at_first() -> None:
    rate = Rate(500, 100.0)
    rate.add(10_500, 100.1)  # read ahead at once
    assert rate.at(10_500, 100.5) is None
    for second in range(1, 41):
        rate.add(10_500 + 100 * second, 100.0 + second)
    assert rate.at(14_500, 140.0) == pytest.approx(100)
    assert rate.at(14_500, 160.0) == pytest.approx(100 * WINDOW / (WINDOW + 20))  # nothing moved for 20 s


def test_the_bar_shows_no_rate_at_first_and_no_remaining_time_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    now = [50.0]
    bar = Bar(lambda: now[0])
    for total, said in (
        (60_000_000, "20.0 of 60.0 MB, 10.0 MB a second, 4s left"),
        (None, "20.0 MB, 10.0 MB a second"),
    ):
        bar.start("\x1b[31mevil[red]", total, "bytes")
        bar.advance(8_000_000)
        assert "a second" not in bar.text()
        now[0] += 2
        bar.advance(12_000_000)
        assert bar.text() == said
        bar.stop()


def test_the_bar_draws_on_stderr_only_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    bar = Bar()
    bar.stop()
    for total, unit, before in ((10, "lines", 3), (None, "bytes", 0)):
        bar.start("events.jsonl", total, unit, before)
        bar.advance(5 - before)
        print("data")
        bar.advance(5)
        bar.stop()
    assert "events.jsonl" in stream.getvalue()
    assert "3 of 10 lines" in stream.getvalue()
    assert "10 of 10 lines" in stream.getvalue()
    assert "0.0 MB" in stream.getvalue()
    assert capsys.readouterr().out == "data\ndata\n"


def test_the_line_fits_every_terminal_and_figures_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    now = [50.0]
    bar = Bar(lambda: now[0])
    label = f"ingesting exports/{'very-long-name-' * 8}日本-0042.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("rich.progress.Progress.start", lambda _: None)
        bar.start(label, 12_345_600_000, "bytes")
    now[0] += 2
    bar.advance(1_234_500_000)
    figures = "1,234.5 of 12,345.6 MB, 617.2 MB a second, 18s left"
    assert bar.line(140) == (
        "ingesting …ame-very-long-name-very-long-name-very-long-name-日本-0042.jsonl [█         ] " + figures
    )
    assert bar.line(80) == "ingesting …e-日本-0042.jsonl " + figures
    assert bar.line(70) == "ingesting " + figures
    for width in range(2, 200):
        assert cells(bar.line(width)) <= width
        assert bar.line(width)[-len(figures) :] == figures or width < len(figures)
    monkeypatch.setenv("LC_ALL", "C")
    assert " [#         ] " in bar.line(140)
    bar.stop()


def test_a_file_name_cannot_command_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    bar = Bar()
    bar.start("a\x1b]0;owned\x07\x1b[31m[red]b[/red]\u202e.jsonl", 10, "lines")
    bar.advance(1)
    bar.stop()
    drawn = stream.getvalue()
    assert "\x1b]0;" not in drawn
    assert "\x1b[31m" not in drawn
    assert "\u202e" not in drawn
    assert "[red]b[/red]" in drawn
