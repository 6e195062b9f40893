"""The explorable page in a real browser, opened from its file and without a network."""

import re
import shutil

import pytest

from noisegen import reports, storage, sweeps
from tests.reports.test_explore import PROTOCOL, RUNS, record_of, sweep_of

pytest.importorskip("bokeh", reason="the page is explorable with bokeh: pip install '.[explore]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs a browser: pip install playwright")

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason=f"none of {', '.join(BROWSERS)} is installed"),
]
