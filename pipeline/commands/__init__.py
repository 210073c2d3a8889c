"""What the invoke tasks share, and the tasks, by what they are for. `tasks.py` gathers them."""
