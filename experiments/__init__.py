"""One module for each published table or figure: its config, runs, protocol, published numbers."""
