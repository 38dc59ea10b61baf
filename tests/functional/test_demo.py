"""`midwatch demo` as a process: JSON on stdout, progress on stderr, exit code 0."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_a_demo_completes_all_jobs_and_prints_one_document():
    """All jobs complete, although workers are killed and a third of the calls fails."""
    argv = [sys.executable, "-m", "midwatch.workers.cli", "demo", "--jobs", "20", "--json"]
    ran = subprocess.run(argv, capture_output=True, text=True, timeout=1_800, check=False)
    account = json.loads(ran.stdout)
    assert (ran.returncode, account["completed"], account["not_completed"]) == (0, 20, []), ran.stderr
    assert account["worker_kills"] > 0
    assert "Flower: http://127.0.0.1:" in ran.stderr.splitlines()[1]
    assert "20 of 20 jobs" in ran.stderr
