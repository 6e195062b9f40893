"""The command line: `python -m launch.sweep`, `launch.status` and `launch.report`."""
