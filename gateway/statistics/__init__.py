"""Where people fall out: the steps between a gap and its closing, counted and timed."""
