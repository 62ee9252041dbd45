import sys

from agent.main import main


def lablink() -> int:
    """The console script of a machine that has the agent alone: `lablink agent …`."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["agent"]:
        print("usage: lablink agent …\nThis machine has LabLink's agent alone.", file=sys.stderr)
        return 2
    return main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
