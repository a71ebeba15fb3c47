"""The standard library's file objects over shmpipe's ends, as over FileIO on os.pipe."""
