"""Nodes, credentials, starting Dask, the gateway, and the processes that run on nodes."""
