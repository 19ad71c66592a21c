"""Rolling statistics and the typical move of each price, and the processed CSV."""
