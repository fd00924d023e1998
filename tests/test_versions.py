"""The lowest versions that may be installed are those that the tests are run with."""

import configparser

from scripts import ROOT


def test_every_lower_bound_is_tested_as_it_stands():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    wanted = setup["options"]["install_requires"] + setup["options.extras_require"]["test"]
    bounds = dict(line.split(">=") for line in wanted.split())
    lines = (ROOT / ".ci" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert tested.keys() == bounds.keys()
    for name, bound in bounds.items():
        assert tested[name] == bound + ".0" * (2 - bound.count(".")), name
