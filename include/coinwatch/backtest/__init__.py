"""`coinwatch backtest`: the alerts that the rules raise on known prices."""
