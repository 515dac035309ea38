"""What is moved and how: manifests, plans, tickets, the Dask tasks and the copy commands."""
