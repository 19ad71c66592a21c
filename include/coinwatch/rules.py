"""The rules file: every constant of detection, validated, with overrides for each coin.

`include/coinwatch.yaml` explains each value.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coinwatch.settings import SettingsError

Positive = Annotated[float, Field(gt=0)]

UpToADay = Annotated[float, Field(gt=0, le=24)]
UpToFourHours = Annotated[float, Field(gt=0, le=4)]
"""A decision reads the rows of the last 30 hours."""

_TEXTS = {
    "extra_forbidden": "is an unknown key; the rules file that comes with Coinwatch has every key",
    "missing": "is missing",
}


class _Model(BaseModel):
    # Strict: without it, `sigmas: yes` would count as 1.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


M = TypeVar("M", bound=_Model)


class SigmaRules(_Model):
    """How the typical move of a coin (sigma) is learned."""

    half_life_days: Positive
    clip_sigmas: Positive
    clip_after_samples: int = Field(ge=1)
    min_interval_hours: Positive


class MoveRule(_Model):
    """When a move is abnormal, and when it is notified again."""

    sigmas: Positive
    min_pct: Positive
    quiet_hours: Positive
    worse_factor: float = Field(gt=1)

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"sigmas {self.sigmas:g}, min_pct {self.min_pct:g}"


class HourMoveRule(MoveRule):
    """The move of about an hour, and when it was only a spike."""

    late_hours_max: UpToFourHours
    revert_fraction: float = Field(gt=0, le=1)
    revert_hours: UpToFourHours


class DayMoveRule(MoveRule):
    """The move of 24 hours, and when it resolves."""

    rearm_fraction: float = Field(gt=0, lt=1)


class LimitRules(_Model):
    """Fixed limits in percent, whatever is typical of the coin."""

    limit_1h_pct: Positive | None
    limit_24h_pct: Positive | None
    worse_factor: float = Field(gt=1)
    rearm_fraction: float = Field(gt=0, lt=1)


class BadValueRule(_Model):
    """When a value is quarantined, and when it is released."""

    max_step_pct: Positive
    confirm_polls: int = Field(ge=2)
    confirm_pct: Positive

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"max_step_pct {self.max_step_pct:g}, confirm_polls {self.confirm_polls}"


class StaleRule(_Model):
    """When a price is stale."""

    polls: int = Field(ge=2, le=24)
    min_hours: UpToADay
    age_minutes: Positive

    def summary(self) -> str:
        """Return the values that decide, for a notification."""
        return f"polls {self.polls}, min_hours {self.min_hours:g}"


class Rules(_Model):
    """All rules for one coin."""

    symbol: str = ""
    warm_up_samples: int = Field(ge=2)
    critical_factor: float = Field(gt=1)
    sigma: SigmaRules
    move_1h: HourMoveRule
    move_24h: DayMoveRule
    limits: LimitRules
    bad_value: BadValueRule
    stale: StaleRule


class _RulesFile(_Model):
    defaults: Rules
    coins: dict[str, dict[str, Any]] = Field(default_factory=dict)


class RuleBook:
    """The rules of all coins.

    Attributes:
        defaults: The rules of a coin without overrides.
    """

    def __init__(self, defaults: Rules, coins: Mapping[str, Rules]) -> None:
        self.defaults = defaults
        self._coins = dict(coins)

    def for_coin(self, coin: str) -> Rules:
        """Return the rules for a coin."""
        return self._coins.get(coin, self.defaults)

    def symbol(self, coin: str) -> str:
        """Return a coin's ticker, or its id if the rules have none."""
        return self.for_coin(coin).symbol or coin

    def changed(self, coin: str, changes: Mapping[str, Any]) -> "RuleBook":
        """Return rules with other values for a coin.

        Args:
            coin: CoinGecko id.
            changes: Values by key, such as ``move_1h.sigmas``.

        Raises:
            SettingsError: There is no such key, or the value is not allowed.
        """
        content = self.for_coin(coin).model_dump()
        for name, value in changes.items():
            change = value
            for key in reversed(name.split(".")):
                change = {key: change}
            content = _merge(content, change)
        return RuleBook(self.defaults, {**self._coins, coin: _validate(Rules, content, "--set", "rules")})


class _Loader(yaml.SafeLoader):
    """YAML without duplicate keys: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002 - PyYAML's own
        seen = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"duplicate key {key.value}"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_rules(path: Path) -> RuleBook:
    """Read the rules file.

    Raises:
        SettingsError: It cannot be read, or has a wrong, missing or unknown key; the message names the file, the key,
            the value and what is allowed.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - it is a SafeLoader
    except OSError as error:
        raise SettingsError(f"COINWATCH_CONFIG: the rules file {path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"the rules file {path} is not YAML in UTF-8: {error}") from None
    file = _validate(_RulesFile, content, f"the rules file {path}")
    coins = {
        coin: _validate(Rules, _merge(content["defaults"], own), f"the rules file {path}", f"coins.{coin}")
        for coin, own in file.coins.items()
    }
    return RuleBook(file.defaults, coins)


def _merge(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _validate(model: type[M], content: object, where: str, section: str = "") -> M:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        lines = []
        for wrong in error.errors():
            key = ".".join(filter(None, [section, *map(str, wrong["loc"])])) or "the content"
            text = _TEXTS.get(wrong["type"], f"is {wrong['input']!r}: {wrong['msg']}")
            lines.append(f"{where}: {key} {text}")
        raise SettingsError("\n".join(lines)) from None
