"""The command line: `python -m launch.sweep`, `launch.advise`, `launch.status`, `launch.report`."""
