"""The explorer where little is shown: rounds without what is filtered, filters that leave nothing, narrow terminals."""

from __future__ import annotations

import pytest
from test_explore import driven, grown

pytest.importorskip("textual", reason="the explorer needs Textual: pip install babblegraph[explore]")

from babblegraph.explore.outline import Filter  # noqa: E402
from babblegraph.status import Gate  # noqa: E402


def test_the_next_filter_is_there_in_a_round_that_has_none_of_the_one_before():
    async def play(driver):
        driver.app.outline.filter = Filter(status="pruned", gate=Gate.NODE)
        await driver.press("{", "f", "g")
        assert driver.app.outline.filter == Filter()

    driven(grown(), play)
