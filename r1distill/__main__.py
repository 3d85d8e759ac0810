"""`python -m r1distill` and the command `r1distill`."""

from r1distill.cli import main

if __name__ == "__main__":
    main()
