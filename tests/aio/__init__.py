"""Event loops over shmpipe: asyncio, uvloop, trio, anyio; and asyncio over os.pipe beside them."""
