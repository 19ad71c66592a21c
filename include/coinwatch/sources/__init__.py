"""Where prices come from: the CoinGecko client and the reading of its answers."""
