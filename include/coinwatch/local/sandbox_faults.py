"""Switching faults of a running sandbox on and off, for demonstrations."""

from collections.abc import Iterator, Mapping
from typing import Any

import requests

from coinwatch.local.errors import RunError, WrongInput

TIMEOUT = 10


def switch_faults(url: str, fault: Mapping[str, Any], *, clear: bool) -> Iterator[str]:
    """Switch a fault on, or all off, and tell which are on then.

    Args:
        url: Where the sandbox's CoinGecko is.
        fault: What to switch on: the attributes of ``coinwatch.sandbox.faults.Fault``; nothing, if empty.
        clear: Whether to switch all others off first.

    Raises:
        RunError: There is no sandbox.
        WrongInput: It does not understand the fault.
    """
    if fault and "kind" not in fault:
        raise WrongInput(f"{', '.join(fault)}: of what? Name the fault")
    faults = _ask("DELETE" if clear else "GET", url, None)
    if fault:
        faults = _ask("POST", url, fault)
    for each in faults:
        told = {name: value for name, value in each.items() if name != "kind" and value not in (None, "")}
        yield f"{each['kind']}: {' '.join(f'{name}={value}' for name, value in told.items())}"
    if not faults:
        yield "no fault is switched on"


def _ask(method: str, url: str, fault: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    try:
        response = requests.request(method, f"{url.rstrip('/')}/sandbox/faults", json=fault, timeout=TIMEOUT)
        content = response.json()
    except (requests.RequestException, ValueError) as error:
        raise RunError(
            f"there is no sandbox at {url} ({type(error).__name__}): start one with `make run` or `coinwatch sandbox`"
        ) from None
    if response.status_code != 200:
        raise WrongInput(str(content.get("error", content)))
    faults: list[dict[str, Any]] = content
    return faults
