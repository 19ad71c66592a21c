"""The CoinGecko API: requests within its limits, and what its answers mean."""
