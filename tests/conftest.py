"""How `pytest -n logical --dist loadscope` deals tests out: by file, and what every widget is asked by widget; to how many."""

import os

import pytest


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Three processes for two cores: each waits a third of its time, for a browser or a kernel."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + cores // 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") != "loadscope":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            widget = test.partition("[")[2].rstrip("]").split("-")[0] if file.endswith("/test_every_widget_browser.py") else ""
            return f"{file}::{widget}" if widget else super()._split_scope(nodeid)

    return Scheduling(config, log)
