"""Migrations of the warehouse: each upgrades every older database and loses nothing."""
