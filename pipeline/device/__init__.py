"""The board: what it is, its power and clocks, and what a run did to it."""
