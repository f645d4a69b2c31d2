"""Speech as it arrives: codecs, noise, rooms and the like (conditions.py), and the same at random for training
(augmenting.py). Waveforms are (T,) float32 at 16 kHz; what chance decides follows from the generator that is given."""
