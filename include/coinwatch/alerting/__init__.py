"""How operators hear of it: messages, their delivery to Slack, and the outbox between them."""
