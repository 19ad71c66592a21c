import pytest

from coinwatch.rules import load_rules
from coinwatch.settings import PROJECT_DIR, SettingsError

SHIPPED = PROJECT_DIR / "include" / "coinwatch.yaml"


def test_the_shipped_rules_are_those_that_were_measured():
    rules = load_rules(SHIPPED)
    assert rules.defaults.model_dump() == {
        "symbol": "",
        "warm_up_samples": 48,
        "critical_factor": 2.0,
        "sigma": {"half_life_days": 90, "clip_sigmas": 5, "clip_after_samples": 48, "min_interval_hours": 0.25},
        "move_1h": {
            "sigmas": 6,
            "min_pct": 1,
            "quiet_hours": 6,
            "worse_factor": 1.5,
            "late_hours_max": 3,
            "revert_fraction": 0.65,
            "revert_hours": 1.5,
        },
        "move_24h": {"sigmas": 3.5, "min_pct": 3, "quiet_hours": 48, "worse_factor": 1.5, "rearm_fraction": 0.7},
        "limits": {"limit_1h_pct": None, "limit_24h_pct": None, "worse_factor": 1.5, "rearm_fraction": 0.7},
        "bad_value": {"max_step_pct": 25, "confirm_polls": 3, "confirm_pct": 5},
        "stale": {"polls": 3, "min_hours": 1, "age_minutes": 60},
    }
    assert rules.symbol("bitcoin") == "BTC"
    assert rules.symbol("nobody-knows-it") == "nobody-knows-it"


def test_every_value_says_what_it_does():
    lines = [line for line in SHIPPED.read_text().splitlines() if line.startswith("  ") and ":" in line]
    values = [line for line in lines[: lines.index("  binancecoin: {symbol: BNB}")] if not line.rstrip().endswith(":")]
    assert [line for line in values if "#" not in line] == []


def test_a_coin_overrides_only_what_it_names(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text(
        SHIPPED.read_text().replace("bitcoin: {symbol: BTC}", "bitcoin: {symbol: XBT, move_1h: {sigmas: 5}}")
    )
    rules = load_rules(path)
    assert rules.for_coin("bitcoin").move_1h.sigmas == 5
    assert rules.for_coin("bitcoin").move_1h.quiet_hours == 6
    assert rules.for_coin("ethereum").move_1h.sigmas == 6
    assert rules.symbol("bitcoin") == "XBT"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param("sigmas: 6 ", "sigmas: -6 ", "defaults.move_1h.sigmas is -6: Input should be greater", id="range"),
        pytest.param("sigmas: 6 ", "sigmas: many ", "defaults.move_1h.sigmas is 'many': Input should be a", id="type"),
        pytest.param("sigmas: 6 ", "sigmas: yes ", "defaults.move_1h.sigmas is True: Input should be a", id="yes"),
        pytest.param("sigmas: 6 ", "sigmas: .nan ", "defaults.move_1h.sigmas is nan: Input should be", id="no number"),
        pytest.param("sigmas: 6 ", "", "defaults.move_1h.sigmas is missing", id="missing"),
        pytest.param(
            "late_hours_max: 3", "late_hours_max: 5", "is 5: Input should be less than or equal to 4", id="5 h"
        ),
        pytest.param("limit_1h_pct: null", "limit_1h_pct: 0", "defaults.limits.limit_1h_pct is 0: Input", id="limit 0"),
        pytest.param("coins:", "? [a]\n: 1\ncoins:", "is not YAML", id="a list as a key"),
        pytest.param("cardano:", "bitcoin:", "is not YAML in UTF-8: duplicate key bitcoin", id="a coin twice"),
        pytest.param("sigmas: 6 ", "sigma: 6 ", "defaults.move_1h.sigma is an unknown key", id="unknown key"),
        pytest.param("{symbol: BTC}", "BTC", "coins.bitcoin is 'BTC': Input should be a valid dict", id="no section"),
        pytest.param("{symbol: BTC}", "{name: BTC}", "coins.bitcoin.name is an unknown key", id="coin key"),
        pytest.param("{symbol: BTC}", "{move_1h: {sigmas: 0}}", "coins.bitcoin.move_1h.sigmas is 0", id="of a coin"),
        pytest.param("coins:", "coin:", "coin is an unknown key", id="an unknown section"),
        pytest.param("defaults:", "defaults: [", "is not YAML", id="broken"),
    ],
)
def test_a_wrong_value_names_the_file_the_key_the_value_and_what_is_allowed(tmp_path, old, new, message):
    path = tmp_path / "rules.yaml"
    path.write_text(SHIPPED.read_text().replace(old, new, 1))
    with pytest.raises(SettingsError) as failure:
        load_rules(path)
    assert message in str(failure.value)
    assert str(path) in str(failure.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"# caf\xe9\n", "is not YAML in UTF-8: .* byte 0xe9 in position 5", id="another encoding"),
        pytest.param(None, "cannot be read: No such file", id="missing"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, content, message):
    path = tmp_path / "rules.yaml"
    if content:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"the rules file .*rules\.yaml {message}"):
        load_rules(path)
