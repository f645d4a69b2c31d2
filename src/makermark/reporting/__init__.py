"""Result tables, plots, and the files that `dvc plots` reads. Import the modules directly."""
