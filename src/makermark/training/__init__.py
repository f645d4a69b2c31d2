"""Training of a backbone and a loss on batches of crops: `run.py` a whole experiment, `loop.py` the loop."""
