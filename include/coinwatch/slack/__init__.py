"""Notifications: wording, Slack blocks, charts, the outbox and its delivery."""
