"""`coinwatch backtest`: what the rules would have told of prices that are known."""
