"""One module per sub-command: module `name` defines `command` for `shmpipe name`."""
