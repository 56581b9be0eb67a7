"""`python -m monoglot` is `monoglot`."""

from monoglot.cli import main

main()
