"""Measures specialists and random actions: ``somite-references "run=runs/*"``."""

from somite.scripts.cli.command_line import program

main = program("references", "somite.agents.evaluation.references:make_references")

if __name__ == "__main__":
    main()
