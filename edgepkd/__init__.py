"""edgepkd: early-exit action recognition from compressed video on small GPUs.

Importing this package imports nothing heavy; the rooms below it do their own importing.
"""

__version__ = "0.1.0"
