"""The CoinGecko API: requests within its limits, and the meaning of its answers."""
