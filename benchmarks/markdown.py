"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, num_words: int = 1) -> str:
    """Return a table; the first `num_words` columns are words, the rest numbers."""
    ruler = [":--" if i < num_words else "--:" for i in range(len(header))]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ruler, *rows))


def percent(share: float | None, digits: int = 2) -> str:
    """Return a share in per cent, a dash for none."""
    return "–" if share is None else f"{100 * share:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Return milliseconds, a dash for none."""
    return "–" if value is None else f"{value:.2f}"
