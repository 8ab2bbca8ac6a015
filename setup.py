"""The part of the build that pyproject.toml cannot say: a wheel brings notebooks and versions."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = Path("nbs_lib") / "shipped"


class BuildWithNotebooks(build_py):
    """The build of the package, with copies of the files of which the repository has one."""

    def run(self):
        super().run()
        # an editable installation reads them in the checkout
        if self.editable_mode:
            return
        shipped = Path(self.build_lib) / SHIPPED
        # of an earlier build
        shutil.rmtree(shipped, ignore_errors=True)
        ignored = shutil.ignore_patterns(".ipynb_checkpoints")
        shutil.copytree("notebooks", shipped / "notebooks", ignore=ignored)
        shutil.copyfile("constraints.txt", shipped / "constraints.txt")


setup(cmdclass={"build_py": BuildWithNotebooks})
