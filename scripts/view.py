"""Shows a saved policy in a window, with keys that disturb it: ``somite-view run=last``."""

from somite.scripts.cli.command_line import program

main = program("view", "somite.agents.show.view:view")

if __name__ == "__main__":
    main()
