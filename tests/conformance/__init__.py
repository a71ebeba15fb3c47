"""One suite for every kind of pipe: the kernel's own and shmpipe's must give the same answers."""
