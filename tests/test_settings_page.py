"""The page of settings says what the settings are."""

from pathlib import Path

from scripts.settings_page import page

ROOT = Path(__file__).parents[1]


def test_the_page_of_settings_is_fresh() -> None:
    """Otherwise: run scripts/generate, and commit what it writes."""
    assert (ROOT / "docs" / "settings.md").read_text() == page()


def test_every_setting_says_what_it_is() -> None:
    rows = [line.split("|") for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 50
    for _, name, default, _, reason, _ in rows:
        assert default.strip("` "), name
        assert len(reason) > 10, name
