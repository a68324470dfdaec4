"""How `pytest -n … --dist loadscope` shares out the tests: a file is one process's, what every widget is asked goes by widget."""

import pytest


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
