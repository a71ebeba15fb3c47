"""The shmpipe command: looks at pipes, connects them to the shell, measures them."""
