"""What nano can do and cannot: every task and held-out set, measured once, and the page about it.

sets.py (what is measured) -> measure.py (rows -> answers -> results/nano/<name>.json, set by set) -> page.py (docs/nano.md, figures, the README's table)

make nano-scores                                                    # the bundled model, and the page
python -m benchmarks.nano --model runs/quick --as quick             # another model on the same rows, then the page
python -m benchmarks.nano --model runs/names --as dedicated --only emoji/names_en emoji/names_ja
python -m benchmarks.nano --page                                    # the page alone, from what is measured
"""
