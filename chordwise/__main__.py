"""`python -m chordwise` is the command `chordwise`."""

from chordwise.cli import main

if __name__ == "__main__":
    main()
