"""What tests with real workers share."""

from __future__ import annotations

import pytest

from hybridiff_core.workers.pool import Pool


@pytest.fixture
def pool():
    pool = Pool("demo", lambda place: {"threads": 1})
    yield pool
    pool.close()
