"""Studies that span several runs or corpora."""
