"""Workers on other machines, on Ray: it places, starts, watches, feeds and ends them. Nothing here is imported unasked.

`machines`, `places` and `files` need no Ray: they read what `share` (commands.py) wrote down.
"""
