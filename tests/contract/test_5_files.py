"""Contract, section 5: raw log, archive with its manifest, and processed CSV."""

import csv
import hashlib
import json
import stat

RAW = "timestamp,coin,currency,price,market_cap,volume_24h,change_24h_pct,last_updated_at,fetched_at,source,snapshot"
PROCESSED = (
    "timestamp,coin,currency,price,points_24h,rolling_mean_24h,rolling_std_24h,zscore_24h,change_1h_pct,change_24h_pct,"
    "sigma_1h_pct"
)


def rows(content):
    text = content.decode()
    assert text.endswith("\n")
    assert "\r" not in text
    return list(csv.DictReader(text.splitlines()))


def test_the_raw_log_has_each_time_once_with_the_digits_of_the_api(two_hours):
    raw = rows(two_hours.files["bitcoin_raw.csv"])
    assert ",".join(raw[0]) == RAW
    keys = [(row["coin"], row["currency"], row["timestamp"], row["source"]) for row in raw]
    assert len(set(keys)) == len(keys)
    live = [row for row in raw if row["source"] == "live"]
    assert [row["timestamp"] for row in live] == ["2026-11-22T12:00:00Z", "2026-11-22T13:00:00Z"]
    for row in live:
        body = json.loads(two_hours.files[f"archive/{row['snapshot']}.json"], parse_float=str)
        assert row["price"] == body["bitcoin"]["usd"]


def test_each_snapshot_is_read_only_and_stands_in_the_chain_of_the_manifest(two_hours):
    lines = two_hours.files["archive/manifest.jsonl"].splitlines(keepends=True)
    assert len(lines) == 3
    previous = "0" * 64
    for line in lines:
        entry = json.loads(line)
        assert entry["previous_sha256"] == previous
        previous = hashlib.sha256(line).hexdigest()
        for ending, key in ((".json", "body_sha256"), (".csv", "rows_sha256")):
            assert entry[key] == hashlib.sha256(two_hours.files[f"archive/{entry['name']}{ending}"]).hexdigest()
            path = two_hours.settings.archive_path / f"{entry['name']}{ending}"
            assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert {"name", "request", "status", "headers", "fetched_at"} <= json.loads(lines[0]).keys()
    assert b"secret-key" not in two_hours.files["archive/manifest.jsonl"]


def test_the_processed_csv_has_a_row_for_each_stored_time_ascending(two_hours):
    processed = rows(two_hours.files["bitcoin_processed.csv"])
    assert ",".join(processed[0]).startswith(PROCESSED)
    times = [row["timestamp"] for row in processed]
    assert times == sorted(set(times))
    assert len(times) == len(two_hours.times)
    # One point has no deviation, and nothing before it to compare with: unknown, not zero.
    unknown = ("rolling_std_24h", "zscore_24h", "change_1h_pct", "change_24h_pct")
    assert {processed[0][name] for name in unknown} == {""}
