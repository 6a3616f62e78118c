"""python -m edgepkd.studies.int8"""

from edgepkd.studies.int8.command import main

raise SystemExit(main())
