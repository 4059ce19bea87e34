"""The institutions that watch our log: whose word counts, asking them, and what stops when they are silent."""
