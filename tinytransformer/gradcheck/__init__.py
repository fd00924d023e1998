"""The proof of every gradient: analytic against numerical, and a proof that the proof can fail.

Read in this order: `numerical` (derivatives without calculus), `cases` (on what every operation is tried),
`check` (the verdict on one case), `breakages` (gradients broken on purpose, by which the checker is checked),
`__main__` (the command line).

    python -m tinytransformer.gradcheck               # every gradient of every operation
    python -m tinytransformer.gradcheck --breakages   # every gradient broken in many ways: is each noticed?
"""
