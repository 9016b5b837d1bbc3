from saddlescape.cli import main

main()
