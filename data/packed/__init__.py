"""Images in containers: tar shards, zip archives, Parquet tables; read by index, never unpacked.

An index, made once and kept, has a few numbers for each image: the container, and where in it the
bytes are. It is mapped from files, so that workers share its memory.

    kinds.py        which files are containers, by name
    containers.py   which containers a path means: files, folders, patterns, splits
    entries.py      the images of one container
    members.py      which members of a tar or a zip are images
    tars.py         the images of a tar
    zips.py         the images of a zip, and the bytes of one
    reading.py      descriptors, opened when needed, and whole reads
    parquet.py      the images of a Parquet file: its columns, labels, names
    pages.py        a Parquet column's pages: where each value is, and one of them
    page_headers.py the headers of pages
    thrift.py       the protocol that these are written in
    index.py        the numbers of all images, as files
    build.py        makes the index in several processes, and keeps it
    packed.py       Packed, the source of images
    find.py         from a path to Packed
"""
