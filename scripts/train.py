"""Learns a policy: ``somite-train env=cheetah agent=limb_transformer algorithm=ppo``."""

from somite.scripts.cli.command_line import program

main = program("train", "somite.agents.training.loop:train", resumable=True)

if __name__ == "__main__":
    main()
