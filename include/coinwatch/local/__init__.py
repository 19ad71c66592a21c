"""Everything on this machine: what `make run` starts, follows and ends."""
