"""What was fetched, kept as it came: write-once snapshots with their manifest, and the append-only raw log."""
