"""Source → packets → GOP (lazy) → fields → clips; numpy in and out.

`source` opens, `probe` judges, `stream` reads part by part, `normalize` re-encodes what has no
usable vectors, `gop` cuts and decodes on demand, `clips` makes what a network reads. Import from
the modules: this one imports nothing.
"""
