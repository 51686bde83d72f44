"""The page of settings is what the settings say."""

import runpy
from pathlib import Path

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def test_the_page_has_every_setting():
    page = runpy.run_path(str(REFERENCE / "make_settings.py"))["page"]
    assert (REFERENCE / "settings.md").read_text(encoding="utf-8") == page(), (
        "make the page anew: python docs/reference/make_settings.py > docs/reference/settings.md"
    )
