"""`python -m r1mm`."""

from r1mm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
