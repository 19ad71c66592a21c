"""The rules file: every constant of detection, validated, with overrides by coin."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coinwatch.settings import SettingsError

Positive = Annotated[float, Field(gt=0)]

UpToADay = Annotated[float, Field(gt=0, le=24)]
UpToFourHours = Annotated[float, Field(gt=0, le=4)]
"""A decision sees the rows of the last 30 hours."""


class _Model(BaseModel):
    # Strict: without it, `sigmas: yes` would count as 1.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SigmaRules(_Model):
    """How the usual 1-hour move is learned.

    Attributes:
        half_life_days: Age at which a move counts half.
        clip_sigmas: A move counts as this many sigmas at most,
        clip_after_samples: once so many moves have been seen.
        min_interval_hours: Two prices closer together count as this far apart.
    """

    half_life_days: Positive
    clip_sigmas: Positive
    clip_after_samples: int = Field(ge=1)
    min_interval_hours: Positive


class MoveRule(_Model):
    """When a move is abnormal, and when it is worth another message.

    Attributes:
        sigmas: From this many times the usual move on,
        min_pct: and from this log return in percent on.
        quiet_hours: After a message there is no other one for so long,
        worse_factor: unless the log return is this many times that of the message, up or down.
    """

    sigmas: Positive
    min_pct: Positive
    quiet_hours: Positive
    worse_factor: float = Field(gt=1)

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"sigmas {self.sigmas:g}, min_pct {self.min_pct:g}"


class HourMoveRule(MoveRule):
    """The move of about an hour.

    Attributes:
        late_hours_max: A pull that came late is compared with the price before it, if that is no older than this.
        revert_fraction: The next price that takes back so much of the move shows that it was a spike,
        revert_hours: if it comes no later than this.
    """

    late_hours_max: UpToFourHours
    revert_fraction: float = Field(gt=0, le=1)
    revert_hours: UpToFourHours


class DayMoveRule(MoveRule):
    """The move of 24 hours.

    Attributes:
        rearm_fraction: It is over when the move has come under this part of the threshold, or has turned.
    """

    rearm_fraction: float = Field(gt=0, lt=1)


class LimitRules(_Model):
    """Fixed limits in percent, whatever is usual for the coin.

    Attributes:
        limit_1h_pct: For the change in an hour; none: no limit.
        limit_24h_pct: For the change in a day, likewise.
        worse_factor: Another message comes when the log return is this many times that of the last one.
        rearm_fraction: It is over when the change has come under this part of the limit.
    """

    limit_1h_pct: Positive | None
    limit_24h_pct: Positive | None
    worse_factor: float = Field(gt=1)
    rearm_fraction: float = Field(gt=0, lt=1)


class BadValueRule(_Model):
    """When a value is held back, and when it is believed after all.

    Attributes:
        max_step_pct: A price further than this from the last one that was accepted is held back,
        confirm_pulls: until so many pulls in a row agree
        confirm_pct: within this.
    """

    max_step_pct: Positive
    confirm_pulls: int = Field(ge=2)
    confirm_pct: Positive

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"max_step_pct {self.max_step_pct:g}, confirm_pulls {self.confirm_pulls}"


class StaleRule(_Model):
    """When a price is no news of the market.

    Attributes:
        pulls: So many pulls in a row have exactly the same price,
        min_hours: over at least this time;
        age_minutes: or the price was older than this when it was fetched.
    """

    pulls: int = Field(ge=2, le=24)
    min_hours: UpToADay
    age_minutes: Positive

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"pulls {self.pulls}, min_hours {self.min_hours:g}"


class Rules(_Model):
    """All rules for one coin.

    Attributes:
        symbol: What people call the coin; empty: its id.
        warm_up_samples: With fewer moves seen, nothing is raised.
        critical_factor: An alert is critical from this many times the threshold on.
        sigma: How the usual move is learned.
        move_1h: The move of about an hour.
        move_24h: The move of 24 hours.
        limits: Fixed limits.
        bad_value: What is held back.
        stale: What is no news.
    """

    symbol: str = ""
    warm_up_samples: int = Field(ge=2)
    critical_factor: float = Field(gt=1)
    sigma: SigmaRules
    move_1h: HourMoveRule
    move_24h: DayMoveRule
    limits: LimitRules
    bad_value: BadValueRule
    stale: StaleRule


class RuleBook:
    """The rules of all coins.

    Attributes:
        defaults: For a coin that has none of its own.
    """

    def __init__(self, defaults: Rules, coins: Mapping[str, Rules]) -> None:
        self.defaults = defaults
        self._coins = dict(coins)

    def for_coin(self, coin: str) -> Rules:
        """The rules for a coin."""
        return self._coins.get(coin, self.defaults)

    def symbol(self, coin: str) -> str:
        """What people call a coin."""
        return self.for_coin(coin).symbol or coin

    def changed(self, coin: str, changes: Mapping[str, Any]) -> "RuleBook":
        """A book in which some values of a coin's rules are others.

        Args:
            coin: CoinGecko id.
            changes: Values by their names, as in ``move_1h.sigmas``.

        Raises:
            SettingsError: There is no such value, or it is not allowed.
        """
        content = self.for_coin(coin).model_dump()
        for name, value in changes.items():
            *sections, key = name.split(".")
            place: Any = content
            for section in sections:
                place = place.get(section) if isinstance(place, dict) else None
            if not isinstance(place, dict):
                raise SettingsError(f"{name} is no value of the rules; those are for example move_1h.sigmas")
            place[key] = value
        return RuleBook(self.defaults, {**self._coins, coin: _read(Path("with --set"), "rules", content)})


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once; of two, the second would undo the first without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_rules(path: Path) -> RuleBook:
    """Read the rules file.

    Raises:
        SettingsError: It is missing, is no YAML, or has a wrong or missing value or an unknown key; the message names
            the file, the key, the value and what is allowed.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise SettingsError(f"COINWATCH_CONFIG: the rules file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        wrong = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise SettingsError(f"the rules file {path} is no UTF-8 text: {wrong}; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise SettingsError(f"the rules file {path} is no YAML: {error}") from None
    sections = _section(path, "the file", content, {"defaults", "coins"})
    defaults = _section(path, "defaults", sections.get("defaults"), set(Rules.model_fields))
    book = _read(path, "defaults", defaults)
    coins = {
        str(coin): _read(path, f"coins.{coin}", _merge(defaults, _section(path, f"coins.{coin}", own)))
        for coin, own in _section(path, "coins", sections.get("coins", {})).items()
    }
    return RuleBook(book, coins)


def _section(path: Path, name: str, content: Any, allowed: set[str] | None = None) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise SettingsError(f"the rules file {path}: {name} has to be a section, but is {content!r}")
    unknown = sorted(str(key) for key in content if allowed is not None and key not in allowed)
    if allowed is not None and unknown:
        raise SettingsError(
            f"the rules file {path}: {name} has {', '.join(unknown)}; allowed are {', '.join(sorted(allowed))}"
        )
    return content


def _merge(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _read(path: Path, name: str, content: Mapping[str, Any]) -> Rules:
    try:
        return Rules.model_validate(content)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join([name, *map(str, problem["loc"])])
            if problem["type"] == "extra_forbidden":
                said = f"not known; allowed are {_siblings(problem['loc'])}"
            elif problem["type"] == "missing":
                said = "missing"
            else:
                said = f"{problem['input']!r}: {problem['msg']}"
            lines.append(f"the rules file {path}: {key} is {said}")
        raise SettingsError("\n".join(lines)) from None


def _siblings(loc: tuple[int | str, ...]) -> str:
    """The keys that may stand where an unknown one stands."""
    model: Any = Rules
    for name in loc[:-1]:
        model = model.model_fields[name].annotation
    return ", ".join(sorted(model.model_fields))
