"""Evaluates saved policies on bodies seen and unseen in training: ``somite-evaluate run=last``."""

from somite.scripts.cli.command_line import program

main = program("evaluate", "somite.agents.evaluation.evaluate:evaluate")

if __name__ == "__main__":
    main()
