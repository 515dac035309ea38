"""The tests, as a package: `python -m tests.hosts`, `from tests.hosts import Cluster`."""
