"""`python -m groupcc`: the command line."""

from groupcc.cli import main

raise SystemExit(main())
