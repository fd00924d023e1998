"""The proof of every gradient: analytic against numerical, and a proof that the proof can fail.

Read in this order: `numerical` (derivatives without calculus), `case` and `cases` (on what every operation is tried),
`check` (the verdict on one case), `breakages` (gradients broken on purpose, by which the checker is checked),
`__main__` (the command line). The other four stand behind `exercises.py`: `exercise` takes a gradient out of the
source, `grade` and `hints` judge what a reader writes in its place, `faults` hides a mistake to be found.

    python -m tinytransformer.gradcheck               # every gradient of every operation
    python -m tinytransformer.gradcheck --breakages   # every gradient broken in many ways: is each noticed?
"""
