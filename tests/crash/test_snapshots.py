import hashlib
import itertools
import json
import stat
import threading

import pytest

from coinwatch.archive.snapshots import FIRST_PREVIOUS, Answer, Archive, ArchiveError, snapshot_name
from coinwatch.record import RawPrice, format_raw_prices

ANSWER = Answer(
    "GET /simple/price", 200, {"content-type": "application/json"}, b'{"bitcoin":\xff}', "2026-11-22T12:00:01Z"
)
ROW = RawPrice("2026-11-22T12:00:00Z", "bitcoin", "usd", "1.50", "", "", "", "", "2026-11-22T12:00:01Z", "live", "x")


def manifest(archive):
    return [json.loads(line) for line in archive.manifest.read_bytes().splitlines()]


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_snapshot_is_its_body_its_rows_and_a_line_in_the_manifest(tmp_path, noon):
    archive = Archive(tmp_path)
    name = snapshot_name(noon)
    assert not archive.has(name)
    assert archive.save(name, ANSWER, [ROW])
    assert archive.has(name)
    assert archive.rows(name) == [ROW]
    rows = format_raw_prices([ROW]).encode()
    assert (tmp_path / f"{name}.json").read_bytes() == ANSWER.body
    assert (tmp_path / f"{name}.csv").read_bytes() == rows
    assert manifest(archive) == [
        {
            "name": name,
            "request": "GET /simple/price",
            "status": 200,
            "headers": {"content-type": "application/json"},
            "fetched_at": "2026-11-22T12:00:01Z",
            "body_sha256": hashlib.sha256(ANSWER.body).hexdigest(),
            "rows_sha256": hashlib.sha256(rows).hexdigest(),
            "previous_sha256": FIRST_PREVIOUS,
        }
    ]
    for ending in (".json", ".csv"):
        assert stat.S_IMODE((tmp_path / f"{name}{ending}").stat().st_mode) == 0o444


def test_the_first_snapshot_of_a_name_stays(tmp_path, noon):
    archive = Archive(tmp_path)
    archive.save(snapshot_name(noon), ANSWER, [ROW])
    before = files(tmp_path)
    assert not archive.save(snapshot_name(noon), ANSWER, [])
    assert files(tmp_path) == before


def test_refused_answers_are_kept_under_numbers_of_their_own(tmp_path, noon):
    archive = Archive(tmp_path)
    assert archive.save_refused(noon, "refused", ANSWER) == "20261122T120000Z-refused-1"
    assert archive.save_refused(noon, "refused", ANSWER) == "20261122T120000Z-refused-2"
    assert archive.rows("20261122T120000Z-refused-2") == []


def test_a_missing_snapshot_is_named(tmp_path):
    with pytest.raises(ArchiveError, match="snapshot 20261122T120000Z has no rows file"):
        Archive(tmp_path).rows("20261122T120000Z")


def test_a_file_of_unknown_origin_is_never_replaced(tmp_path, noon):
    path = tmp_path / "20261122T120000Z.csv"
    path.write_text("mine")
    with pytest.raises(ArchiveError, match="never replaced"):
        Archive(tmp_path).save(snapshot_name(noon), ANSWER, [ROW])
    assert path.read_text() == "mine"


def test_names_cannot_leave_the_folder(tmp_path):
    with pytest.raises(ValueError, match="not a snapshot name"):
        Archive(tmp_path).save("20261122T120000Z-../x", ANSWER, [])


def test_killed_at_any_line_and_run_again_it_ends_as_if_nothing_had_happened(tmp_path, noon, kill_at_line):
    def after_another(folder):
        archive = Archive(folder)
        archive.save(snapshot_name(noon, "before"), ANSWER, [])
        return archive

    def save(archive):
        archive.save(snapshot_name(noon), ANSWER, [ROW])

    save(after_another(tmp_path / "reference"))
    for number in itertools.count(1):
        archive = after_another(tmp_path / str(number))
        killed = kill_at_line(lambda archive=archive: save(archive), number)
        save(archive)
        assert files(tmp_path / str(number)) == files(tmp_path / "reference"), f"killed before line {number}"
        if not killed:
            break
    assert number > 50


def test_a_snapshot_left_pending_is_published_after_others_came(tmp_path, noon, kill_at_line):
    for number in itertools.count(1):
        archive = Archive(tmp_path / str(number))
        name = snapshot_name(noon)
        killed = kill_at_line(lambda archive=archive, name=name: archive.save(name, ANSWER, [ROW]), number)
        archive.save(snapshot_name(noon, "other"), ANSWER, [])
        archive.save(name, ANSWER, [ROW])
        assert sorted(entry["name"] for entry in manifest(archive)) == [name, f"{name}-other"]
        if not killed:
            break
    assert number > 50


def test_many_writers_at_once_keep_the_chain_whole(tmp_path, noon):
    archive = Archive(tmp_path)

    def write(number):
        archive.save(snapshot_name(noon, str(number)), ANSWER, [])
        archive.save(snapshot_name(noon), ANSWER, [ROW])

    writers = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = archive.manifest.read_bytes().splitlines(keepends=True)
    assert len(lines) == 9
    assert [json.loads(line)["previous_sha256"] for line in lines[1:]] == [
        hashlib.sha256(line).hexdigest() for line in lines[:-1]
    ]
