"""The paper's comparison on real clips: `just reproduce`, or `python -m edgepkd.studies.exits`."""
