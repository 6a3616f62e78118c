"""python -m edgepkd.studies.exits"""

from edgepkd.studies.command_line import PLOTS, TRAINING, start

if __name__ == "__main__":
    raise SystemExit(start("edgepkd.studies.exits.command", needs=(*TRAINING, *PLOTS)))
