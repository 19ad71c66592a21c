"""Migrations of the warehouse: each version brings every older database forward and loses nothing."""
