"""Speech corpora: readers, the synthesised local corpus, splits and labels; each corpus becomes one manifest."""
