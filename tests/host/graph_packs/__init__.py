"""Packs of other kinds for test_by_graph.py, a file each. In a worker some of them do what a pack should not."""
