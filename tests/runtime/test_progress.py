"""Progress: plain lines in files, inert names everywhere."""

import io

import pytest

from pvnas.runtime.progress import Progress, clean

EVIL = "[red]\x1b[31mjump\x07[/nonsense]\r\n\u202e<script>\ud800"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def run(stream: io.StringIO, title: str = "search epoch 3/80") -> str:
    """Show a task of 4 steps, of which one was done before, and a line, and return what was written."""
    with Progress(stream) as progress:
        with progress.task(title, total=4, completed=1) as task:
            for _ in range(3):
                task.advance(clips=8)
            progress.line(f"class {title}")
        progress.line("end")
    return stream.getvalue()


def test_a_file_gets_one_plain_line_per_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = run(io.StringIO()).splitlines()
    assert len(lines) == 3
    assert lines[0] == "class search epoch 3/80"
    assert lines[1].startswith("search epoch 3/80: 4/4, 24 clips, ")
    assert " clips/s, " in lines[1]
    assert lines[2] == "end"


@pytest.mark.parametrize("title", ["search epoch 3/80", EVIL])
def test_a_file_gets_no_escapes(monkeypatch: pytest.MonkeyPatch, title: str) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    text = run(io.StringIO(), title)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert len(text.splitlines()) == 3


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b" not in run(Terminal())


def test_a_terminal_gets_a_bar_and_names_do_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    text = run(Terminal(), EVIL)
    assert "━" in text
    assert "4/4" in text
    assert "\x1b[31mjump" not in text
    assert clean(EVIL) in text  # with its brackets: no markup was read
    assert "\x07" not in text
    assert "\x1b[?25l" not in text  # a killed process must leave the cursor


def test_tasks_may_be_nested_and_errors_leave_the_terminal_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()

    def fail() -> None:
        with Progress(stream) as progress, progress.task("outer", total=2) as outer:
            with progress.task("inner", total=1) as inner:
                inner.advance()
            outer.advance()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert "inner: 1/1" in stream.getvalue()
    assert stream.getvalue().rstrip().split("\r")[-1].startswith("outer: 1/2, stopped")


def test_a_stream_that_lacks_a_letter_gets_a_question_mark() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Progress(stream).line("größe")
    assert raw.getvalue() == b"gr??e\n"


def test_clean_keeps_words_and_removes_what_steers() -> None:
    assert clean("brush hair ä 日本 [x]") == "brush hair ä 日本 [x]"
    assert clean(EVIL) == "[red]?[31mjump?[/nonsense]  ?<script>?"
    assert clean("a\x9b1m\u2028b") == "a?1m?b"
