"""`python -m rfuav_trainer.cli`: the same as the command `rfuav-trainer`."""

from rfuav_trainer.cli.main import main

main()
