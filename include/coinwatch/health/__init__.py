"""The pipeline itself: issues, checks, failed tasks and the heartbeat."""
