"""A market whose history lacks some hours."""

from datetime import timedelta


class HolesIn:
    """Another market, without the prices within half an hour of some hours."""

    def __init__(self, market, lost):
        self.market = market
        self.lost = set(lost)
        self.kind = market.kind
        self.coins = market.coins

    def price_at(self, coin, moment):
        if any(abs(moment - hour) <= timedelta(minutes=30) for hour in self.lost):
            return None
        return self.market.price_at(coin, moment)
