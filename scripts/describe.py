"""Tells what bodies are made of and draws them: ``somite-describe env.morphology=robot.xml``."""

from somite.scripts.cli.command_line import program

main = program("describe", "somite.scripts.cli.description:describe_bodies")

if __name__ == "__main__":
    main()
