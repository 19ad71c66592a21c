"""Where prices are kept: archive, raw log, warehouse, processed CSV and S3."""
