"""Attribution: which time-frequency cells of a clip support a system, and a deletion test of the attribution."""
