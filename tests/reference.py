"""The definitions of the contract, section 5, in plain Python: what tests compare computed statistics with."""

import math
import statistics
from bisect import bisect_left, bisect_right
from datetime import timedelta

HOUR = timedelta(hours=1)
DAY = timedelta(hours=24)


def expected_statistics(points):
    """Yield the statistics of each (time, price), ascending; None is unknown."""
    times = [t for t, _ in points]
    sigmas = expected_sigmas(points)
    for number, (t, price) in enumerate(points):
        window = [p for _, p in points[bisect_right(times, t - DAY) : number + 1]]
        before = window[:-1]
        spread = statistics.stdev(before) if len(before) >= 12 else 0
        yield {
            "points_24h": len(window),
            "rolling_mean_24h": statistics.fmean(window),
            "rolling_std_24h": statistics.stdev(window) if len(window) > 1 else None,
            "zscore_24h": (price - statistics.fmean(before)) / spread if spread else None,
            "change_1h_pct": _change(points, times, number, HOUR, HOUR / 2),
            "change_24h_pct": _change(points, times, number, DAY, HOUR),
            "sigma_1h_pct": next(sigmas),
        }


def _change(points, times, number, distance, tolerance):
    t, price = points[number]
    first, last = bisect_left(times, t - distance - tolerance), bisect_right(times, t - distance + tolerance)
    near = [(abs(t - distance - s), s, p) for s, p in points[first : min(last, number)]]
    return 100 * (price / min(near)[2] - 1) if near else None


def expected_sigmas(points):
    """Yield the typical 1-hour move after each row, in percent, by the rules that the project ships; None at first.

    A price that takes back at least 65 % of an abnormal move of the price before, within 1.5 hours, restores what was
    known before that move.
    """
    variance, count = 0.0, 0
    known = []
    for number, (t, price) in enumerate(points):
        if number:
            before, previous = points[number - 1]
            log_return = math.log(price / previous)
            hours = (t - before) / HOUR
            jump = _jump(points, number - 1, known)
            if jump and log_return * jump < 0 and abs(log_return) >= 0.65 * abs(jump) and hours <= 1.5:
                variance, count = known[number - 2]
            else:
                move = log_return / math.sqrt(max(hours, 0.25))
                if count >= 48 and variance:
                    move = math.copysign(min(abs(move), 5 * math.sqrt(variance)), move)
                variance += max(1 - 0.5 ** (1 / 2160), 1 / (count + 1)) * (move * move - variance)
                count += 1
        known.append((variance, count))
        yield 100 * math.sqrt(variance) if count else None


def _jump(points, number, known):
    """Return the log return of the price about an hour before, or of a late poll the one before, if it is abnormal."""
    if number < 1 or known[number - 1][1] < 48:
        return None
    t, price = points[number]
    near = [
        (abs(t - HOUR - s), s, p) for s, p in points[max(0, number - 200) : number] if abs(t - HOUR - s) <= HOUR / 2
    ]
    near = near or [(None, s, p) for s, p in points[number - 1 : number] if t - s <= 3 * HOUR]
    if not near:
        return None
    _, since, reference = near[0] if near[0][0] is None else min(near)
    log_return = math.log(price / reference)
    typical = math.sqrt(known[number - 1][0] * ((t - since) / HOUR))
    return log_return if abs(log_return) >= max(6 * typical, 0.01) else None
