"""Loads the harness: suites and the harness's own tests use the same plugin."""

pytest_plugins = ["harness.plugin"]
