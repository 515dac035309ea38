"""The ticket queue that keeps copies back to a data server within what the server can bear."""
