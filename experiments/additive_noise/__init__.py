"""The draft "Even larger batch size with additive gradient noise".

One file for each table or figure. The MNIST experiments have the scales `paper`, the default, and
`test`, which takes seconds. table2.py, table2_ghost.py and wikitext2.py have `gpu` and `cpu`, the
default, besides.
"""
