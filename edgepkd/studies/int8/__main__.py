"""python -m edgepkd.studies.int8"""

from edgepkd.studies.command_line import start

if __name__ == "__main__":
    raise SystemExit(start("edgepkd.studies.int8.command"))
