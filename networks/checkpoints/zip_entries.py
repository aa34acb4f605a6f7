"""Where the bytes of a zip's entry begin, for readers that map or seek in an entry that is stored without compression."""

import struct

LOCAL_HEADER_BYTES = 30  # APPNOTE.TXT 4.3.7: fixed fields, then the name, then an extra field of its own length
LOCAL_HEADER_START = b'PK\x03\x04'


def first_byte(header: bytes, header_offset: int) -> int:
    """Offset in the file of an entry's first byte.

    The lengths of name and extra field are those of the local header: the directory at the end of the file may say others.

    Args:
        header: The LOCAL_HEADER_BYTES bytes at `header_offset`.
        header_offset: Where the directory says that the local header is.

    Raises:
        ValueError: There is no local header.
    """
    if len(header) != LOCAL_HEADER_BYTES or not header.startswith(LOCAL_HEADER_START):
        raise ValueError('the zip is damaged')
    name_length, extra_length = struct.unpack('<HH', header[26:])
    return header_offset + LOCAL_HEADER_BYTES + name_length + extra_length
