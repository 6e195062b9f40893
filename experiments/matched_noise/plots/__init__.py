"""Programs that read finished sweeps: run them with `python -m`, not with --config."""
