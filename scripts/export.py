"""Writes a saved policy as a file that other programs run: ``somite-export run=last output=policy.onnx``."""

from somite.scripts.cli.command_line import program

main = program("export", "somite.agents.export.export:export")

if __name__ == "__main__":
    main()
