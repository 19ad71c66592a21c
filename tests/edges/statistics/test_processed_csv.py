import pytest

from coinwatch.statistics.compute import compute_rolling_statistics
from coinwatch.statistics.processed_csv import export_processed_csv, format_processed, select_processed


@pytest.fixture
def export(pipeline):
    """Process what was loaded, and return the CSV."""

    def export():
        compute_rolling_statistics(pipeline.app)
        export_processed_csv(pipeline.app)
        return path(pipeline).read_bytes()

    return export


def path(pipeline):
    return pipeline.app.settings.processed_path("bitcoin")


def whole(pipeline):
    """Return the CSV as it is when it is written whole."""
    with pipeline.app.warehouse.begin() as connection:
        return format_processed(connection.execute(select_processed(coin="bitcoin"))).encode()


def test_an_ordinary_hour_is_appended(pipeline, export):
    pipeline.load(*range(40), source="history")
    before, file = export(), path(pipeline).stat().st_ino
    assert before == whole(pipeline)
    pipeline.load(40)
    after = export()
    assert after == whole(pipeline)
    assert after.startswith(before)
    assert path(pipeline).stat().st_ino == file


def test_when_an_older_row_changes_the_file_is_replaced(pipeline, export):
    pipeline.load(*range(20), *range(22, 40))
    export()
    file = path(pipeline).stat().st_ino
    pipeline.load(20, 21, source="history")
    changed = export()
    assert changed == whole(pipeline)
    assert path(pipeline).stat().st_ino != file
    pipeline.load(0, price="99.5")
    assert export() == whole(pipeline) != changed, "from the first row on"


def test_several_currencies_and_times_alike(pipeline, export):
    pipeline.load(*range(5))
    pipeline.load(*range(5), currency="eur")
    export()
    pipeline.load(5)
    pipeline.load(5, currency="eur")
    assert export() == whole(pipeline)
    pipeline.load(5, currency="gbp")
    assert export() == whole(pipeline)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: content[:-7], id="a torn last line"),
        pytest.param(lambda content: content[: content.rindex(b"\n", 0, -1) + 1], id="the last line is missing"),
        pytest.param(lambda content: content[: content.index(b"\n") + 1], id="only the header"),
        pytest.param(lambda _: b"", id="empty"),
        pytest.param(lambda _: None, id="missing"),
        pytest.param(lambda content: content.replace(b"points_24h", b"points", 1), id="another header"),
        pytest.param(lambda content: content[:-3] + b"9\n", id="another last line"),
        pytest.param(lambda content: content + b"a note\n", id="a line of something else"),
        pytest.param(lambda content: content + content.splitlines(keepends=True)[-1], id="a line twice"),
        pytest.param(lambda content: content + b"\n", id="an empty line"),
        pytest.param(lambda _: b"\xff\x00" * 3000 + b"\n", id="noise"),
    ],
)
def test_a_damaged_file_is_repaired_with_the_next_row(pipeline, export, damage):
    pipeline.load(*range(10))
    content = damage(export())
    path(pipeline).unlink()
    if content is not None:
        path(pipeline).write_bytes(content)
    pipeline.load(10)
    assert export() == whole(pipeline)
