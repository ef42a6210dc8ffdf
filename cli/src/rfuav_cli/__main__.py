"""`python -m rfuav_cli`."""

from rfuav_cli.main import main

main()
