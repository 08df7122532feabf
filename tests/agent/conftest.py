"""Every test of an agent runs over Work, and over FetchTask for distributors that lack it."""

import pytest

from tests.support.agents import Stage


@pytest.fixture(autouse=True, params=[False, True], ids=["Work", "FetchTask"])
def feed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "unary", request.param)
