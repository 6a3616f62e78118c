"""python -m edgepkd.reproduce"""

from edgepkd.reproduce.command import main

raise SystemExit(main())
