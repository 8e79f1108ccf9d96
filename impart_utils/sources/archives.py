"""The archives of the paper's test sets: fetched with their hash, unpacked whole or not at all."""

from pathlib import Path

# archives: address, MD5 (torchvision's own; Caltech's data repository, DOI 10.22002/D1.20086)
ARCHIVES = {
    "cifar10": ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "c58f30108f718f92721af3b95e74349a"),
    "cifar100": ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                 "eb9058c3a382ffc7106e4002c42a8d85"),
    "caltech101": ("https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                   "3138e1922a9193bfa496528edbbc45d0"),
}


def fetch(name, downloads):
    """Fetch the archive of a set into the folder `downloads`, resumed and checked, and unpack it."""
    from impart_utils.sources.download import fetch_file

    url, md5 = ARCHIVES[name]
    archive = downloads / url.rsplit("/", 1)[1]
    fetch_file(url, archive, md5=md5)
    unpack(archive, downloads / "caltech101" if name == "caltech101" else downloads)


def unpack(archive, folder):
    """Unpack a .tar.gz, or Caltech's .zip with one inside, into `folder`; a kill leaves no half tree behind.

    What is unpacked stands in a temporary folder until it is whole, and is then moved into place.
    """
    import shutil
    import tarfile
    import tempfile
    import zipfile

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpack-") as temporary:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                inner = [name for name in file.namelist() if name.endswith("101_ObjectCategories.tar.gz")]
                if not inner:
                    raise ValueError(f"{archive} holds no 101_ObjectCategories.tar.gz: it isn't Caltech101's "
                                     "archive.")
                archive = Path(file.extract(inner[0], temporary))
        target = Path(temporary) / "tree"
        with tarfile.open(archive) as file:
            file.extractall(target, filter="data")  # refuses paths that lead out of the folder
        for place in target.iterdir():
            shutil.rmtree(folder / place.name, ignore_errors=True)
            place.rename(folder / place.name)
