"""asyncio over the ends of a pipe: streams, and transports for any protocol.

    reader = await shmpipe.aio.open_reader(end)      # an asyncio.StreamReader
    writer = await shmpipe.aio.open_writer(end)      # an asyncio.StreamWriter

They work on every loop that has add_reader() and add_writer(), so under uvloop, too.  An end that
was handed over belongs to its transport, which sets O_NONBLOCK on it, for good and for whoever
shares it, as asyncio does with os.pipe (LF-9), and closes it.
"""

from shmpipe.aio.reading import ReadTransport, connect_read_pipe
from shmpipe.aio.streams import StreamReader, StreamWriter, open_reader, open_writer
from shmpipe.aio.writing import WriteTransport, connect_write_pipe

__all__ = [
    "ReadTransport",
    "StreamReader",
    "StreamWriter",
    "WriteTransport",
    "connect_read_pipe",
    "connect_write_pipe",
    "open_reader",
    "open_writer",
]
