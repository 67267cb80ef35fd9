"""From one machine to a cluster: checking its file, and sweeps on it; thin over Ray's own commands."""
