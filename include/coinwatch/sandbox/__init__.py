"""Stand-in services on loopback: a CoinGecko, a Slack and an S3, used through the real clients."""
