"""python -m edgepkd.studies.demo"""

from edgepkd.studies.command_line import start

if __name__ == "__main__":
    raise SystemExit(start("edgepkd.studies.demo.command"))
