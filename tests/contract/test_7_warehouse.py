"""Contract, section 7: tables, columns and keys that queries rely on."""

import pytest
from sqlalchemy import inspect

COLUMNS = {
    "prices": "coin currency ts price market_cap volume_24h source last_updated_at fetched_at snapshot",
    "price_statistics": "coin currency ts price points_24h rolling_mean_24h rolling_std_24h zscore_24h change_1h_pct "
    "change_24h_pct sigma_1h_pct",
    "alerts": "id coin currency rule severity state ts value threshold message raised_at delivered_at",
}
KEYS = {"prices": ["coin", "currency", "ts"], "price_statistics": ["coin", "currency", "ts"], "alerts": ["id"]}


@pytest.mark.postgres
def test_the_columns_and_the_keys_of_the_tables_are_there(warehouse):
    found = inspect(warehouse)
    for table, columns in COLUMNS.items():
        names = [column["name"] for column in found.get_columns(table)]
        assert [name for name in names if name in columns.split()] == columns.split()
        assert found.get_pk_constraint(table)["constrained_columns"] == KEYS[table]
