"""python -m edgepkd.studies.defaults"""

from edgepkd.studies.command_line import start

if __name__ == "__main__":
    raise SystemExit(start("edgepkd.studies.defaults.command"))
