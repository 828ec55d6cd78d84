"""Messages about files that are given as a zip and are not one. Derived in notebooks/01_datasets."""

_ADVICE = "; give the release archive as its authors publish it"
REPACK = "unpack it, and pack its folder as a zip: python -m zipfile -c NAME.zip FOLDER"
_STARTS = {  # how a file begins -> what it is, and what to do
    b"\x1f\x8b": f" but packed with gzip (.gz, .tgz); {REPACK}",
    b"BZh": f" but packed with bzip2; {REPACK}",
    b"\xfd7zXZ": f" but packed with xz; {REPACK}",
    b"\x28\xb5\x2f\xfd": f" but packed with zstd; {REPACK}",
    b"Rar!": f" but a rar; {REPACK}",
    b"7z\xbc\xaf\x27\x1c": f" but a 7z; {REPACK}",
    b"MATLAB": " but a MATLAB file; pack it: python -m zipfile -c cuhk03_release.zip cuhk-03.mat",
    b"\x89HDF": " but an HDF5 file; pack it: python -m zipfile -c cuhk03_release.zip cuhk-03.mat",
    b"<": " but a web page, saved in place of the archive; download the archive itself",
    b"version https://git-lfs": " but a pointer of Git LFS; fetch the file with: git lfs pull",
    b"PK\x05\x06": " with anything in it; download it again",
}


def what_instead(start: bytes) -> str:
    """The end of the sentence `... is not a zip`, from a file's first 512 bytes."""
    if not start.strip(b"\0"):
        return f"{' but empty' if not start else ''}{_ADVICE}"
    if start[257:262] == b"ustar":
        return f" but a tar; {REPACK}"
    found = (said for begins, said in _STARTS.items() if start.lstrip().startswith(begins))
    return next(found, _ADVICE)
