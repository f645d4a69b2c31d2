"""What `corpus:` in params.yaml may say. How each is read stands in reading.py, which only the download stage imports:
a change to one adapter makes no trained model out of date."""

CORPORA = ("local", "mlaad-v5", "manifest", "folders", "asvspoof2019-la", "stopa", "wavefake")
