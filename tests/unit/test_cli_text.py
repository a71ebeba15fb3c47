"""Text in and out of the command: sizes, ages, and names that strangers chose."""

import pytest
from shmpipe_tools.safe import printable
from shmpipe_tools.sizes import format_age, format_size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("64K", 65536),
        ("64k", 65536),
        ("64 KiB", 65536),
        ("64KB", 65536),
        ("1M", 1 << 20),
        ("1G", 1 << 30),
        ("17B", 17),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1.5M", "64X", "1e6", "64K64", "٣", "9" * 30])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (4 << 20, "4 MiB"),
        (5 << 40, "5120 GiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (59.9, "59 s"),
        (185, "3 min 5 s"),
        (7500, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_ages_are_written(seconds: float, text: str) -> None:
    assert format_age(seconds) == text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain-Name_1.ü漢", "plain-Name_1.ü漢"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\x7f\x9b", "a\\x0ab\\x09c\\x7f\\x9b"),
        ("\u202etxt", "\\u202etxt"),  # right-to-left override
        ("\u2028", "\\u2028"),
        ("\udcff", "\\xff"),  # a byte that is not UTF-8
        ("\U000e0041", "\\U000e0041"),  # an invisible tag character
        ("[bold]:smile:[/bold]", "[bold]:smile:[/bold]"),
    ],
)
def test_nothing_that_a_terminal_obeys_is_printed(name: str, shown: str) -> None:
    assert printable(name) == shown
