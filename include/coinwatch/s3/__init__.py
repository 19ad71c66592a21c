"""S3 objects: write-once archive and hourly partitions."""
