"""`python -m guerdon`: the command line."""

from guerdon.cli import main

if __name__ == "__main__":
    main()
