"""Builds the shared library by Tools/build-library and puts it into the wheel, which is of this platform."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HEADER = ROOT / "Sources/CThinkCompress/include/think_compress.h"


def version() -> str:
    """The library's, as its header has it."""
    if not HEADER.exists():
        raise SystemExit("think-compress is built in a checkout of its repository: pip install Tools/Python")
    found = re.search(r'^#define TC_VERSION "(.*)"$', HEADER.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{HEADER} has no TC_VERSION")
    return found[1]


class BuildWithLibrary(build_py):  # type: ignore[misc]
    """The package's modules, and beside them the library and its licence."""

    def run(self) -> None:
        """Copies the modules and builds the library."""
        super().run()
        package = HERE / "src" if self.editable_mode else Path(self.build_lib)
        with tempfile.TemporaryDirectory() as prefix:
            # What is missing, such as Swift, the script says itself.
            if subprocess.run([ROOT / "Tools/build-library", prefix]).returncode != 0:
                raise SystemExit("Tools/build-library failed: what it needs stands above")
            library = next(Path(prefix, "lib").glob("libthink_compress.[sd][oy]*"))
            name = "libthink_compress.dylib" if ".dylib" in library.name else "libthink_compress.so"
            # Replaced by renaming: programs that run keep what they have mapped.
            copy = shutil.copyfile(library, package / "think_compress" / f".{name}.new")
            copy.rename(copy.with_name(name))
            shutil.copyfile(Path(prefix, "share/doc/think-compress/LICENSE"), package / "think_compress/LICENSE")


class PlatformWheel(bdist_wheel):  # type: ignore[misc]
    """A wheel for any Python 3 of one platform."""

    def get_tag(self) -> tuple[str, str, str]:
        """The library is of the platform, and of no version of Python."""
        return "py3", "none", super().get_tag()[2]


class PlatformDistribution(Distribution):  # type: ignore[misc]
    """One with compiled parts."""

    def has_ext_modules(self) -> bool:
        """True for a library, too."""
        return True


# Beside this file nothing is left behind: a folder `build` would have the name of the script there.
with tempfile.TemporaryDirectory() as work:
    setup(
        version=version(),
        distclass=PlatformDistribution,
        cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel},
        options={"build": {"build_base": work}, "egg_info": {"egg_base": work}},
    )
