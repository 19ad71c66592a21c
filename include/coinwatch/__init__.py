"""Coinwatch: an hourly watch over crypto prices that an operator can trust."""

__version__ = "0.1.0"
