"""python -m edgepkd.studies.exits"""

from edgepkd.studies.exits.command import main

raise SystemExit(main())
